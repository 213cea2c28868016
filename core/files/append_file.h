#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace longnet {

/// A file that grows by whole records: a record is in it, or nothing of it. What was there before is never touched.
class AppendFile {
 public:
  /// Opens the file, or makes it. Throws FileError.
  explicit AppendFile(const std::filesystem::path& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Throws FileError when the disk refuses; the file then ends where it did before.
  void append(std::string_view record);

  /// Whether the path still leads to this file, and it holds what was written: it may have been removed, moved, or cut.
  bool is_whole() const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_;  ///< of whole records
};

}  // namespace longnet
