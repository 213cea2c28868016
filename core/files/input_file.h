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
  /// What differs when somebody has written the file.
  struct Version {
    std::uint64_t size = 0;
    std::int64_t modified = 0;  ///< nanoseconds, by the file system's clock
    bool operator==(const Version&) const = default;
  };

  /// Throws DataError when the file cannot be opened, or is a folder, a pipe or a device.
  explicit InputFile(const std::filesystem::path& path);
  /// The same, also when it is not what it was.
  InputFile(const std::filesystem::path& path, const Version& expected);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return version_.size; }  ///< in bytes, when it was opened
  const Version& version() const { return version_; }   ///< when it was opened

  /// Fills `bytes` from `offset` on. Throws DataError when the file ends before that or the disk refuses.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

  /// The first bytes as text, at most `count`.
  std::string beginning(std::size_t count) const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  Version version_;
};

}  // namespace longnet
