#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace longnet {

/// A regular file opened for reading. It is read, not mapped: a mapping counts as the process's memory, there is a limit
/// to how many there can be, and a file that shrinks under one kills the process.
class InputFile {
 public:
  /// Throws DataError when the file cannot be opened, or is a folder, a pipe or a device.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  ///< in bytes, when it was opened

  /// Fills `bytes` from `offset` on. Throws DataError when the file ends before that or the disk refuses.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

  /// The first bytes as text, at most `count`.
  std::string beginning(std::size_t count) const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

}  // namespace longnet
