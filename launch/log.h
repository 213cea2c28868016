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
  /// Appends to `file`. A quiet screen shows warnings only. Throws Error when the file cannot be written.
  Log(const std::filesystem::path& file, bool quiet_screen);

  void info(const std::string& line) const;
  void warn(const std::string& line) const;

 private:
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace longnet
