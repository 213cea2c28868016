#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "core/files/input_file.h"

namespace longnet {

/// What a written file must look like when it is read again.
struct FileDigest {
  std::uint64_t bytes;
  std::string xxh3_128;  ///< 32 lowercase hex digits

  bool operator==(const FileDigest&) const = default;
};

/// A new file that is hashed while it is written. Throws FileError when the disk refuses.
class HashingFile {
 public:
  explicit HashingFile(const std::filesystem::path& path);
  ~HashingFile();
  HashingFile(const HashingFile&) = delete;
  HashingFile& operator=(const HashingFile&) = delete;

  void write(std::span<const std::byte> data);
  void write(const std::string& text) { write(std::as_bytes(std::span(text))); }

  /// Puts the file on the disk, closes it and tells its digest.
  FileDigest commit();

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t bytes_ = 0;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash_;
};

/// Reads a file from its beginning to its end, once, and hashes it.
class HashingReader {
 public:
  explicit HashingReader(const InputFile& file);

  /// Fills `bytes` with what comes next. Throws DataError.
  void read(std::span<std::byte> bytes);
  /// Reads up to `offset`, for the digest alone.
  void skip_to(std::uint64_t offset);
  /// Reads the rest. Returns the digest of the file.
  FileDigest finish();

 private:
  const InputFile& file_;
  std::uint64_t offset_ = 0;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash_;
};

FileDigest digest_of(std::span<const std::byte> data);

/// Of a whole file, read piece by piece.
FileDigest digest_of(const InputFile& file);

/// A line that differs when the content differs: size, and a digest of its beginning, its end and blocks between.
std::string fingerprint(const std::filesystem::path& path);

/// Puts the entries of a folder on the disk: what was created, renamed or removed in it.
void synchronize_folder(const std::filesystem::path& folder);

}  // namespace longnet
