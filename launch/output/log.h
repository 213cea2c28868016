#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace spdlog {
class logger;
}

namespace longnet {

/// The lines that a run says about itself: on the screen, and with the time in the run's log.txt.
class Log {
 public:
  /// A log that says nothing: for all ranks but the first.
  Log() = default;
  /// Appends to `file`. A file that cannot be written is said on the screen and ends nothing: see RetryingFile.
  explicit Log(const std::filesystem::path& file);

  /// For the file alone.
  void record(const std::string& line) const;
  void info(const std::string& line) const;
  void warn(const std::string& line) const;

 private:
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace longnet
