#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "core/files/append_file.h"

namespace longnet {

/// A file of the run folder that may fail without ending the training: metrics, events, the log. Records that a disk
/// refuses are kept in memory and written as soon as it takes them again. When that begins and when it ends is said once.
class RetryingFile {
 public:
  /// `say` tells the user something. The file is opened, or made, with the first record.
  RetryingFile(std::filesystem::path path, std::function<void(const std::string&)> say);
  /// Tries a last time, and says what is lost.
  ~RetryingFile();
  RetryingFile(const RetryingFile&) = delete;
  RetryingFile& operator=(const RetryingFile&) = delete;

  void write(std::string record);

 private:
  /// Writes what waits. False when the disk refuses.
  bool flush();

  std::filesystem::path path_;
  std::function<void(const std::string&)> say_;
  std::optional<AppendFile> file_;
  std::deque<std::string> waiting_;
  std::uint64_t waiting_bytes_ = 0;
  std::int64_t late_ = 0;  ///< records that had to wait since the disk began to refuse; 0: all is well
  std::int64_t lost_ = 0;  ///< records for which there was no room
};

}  // namespace longnet
