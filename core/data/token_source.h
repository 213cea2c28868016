#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/configuration/configuration.h"

namespace longnet {

/// A long row of tokens that lies in files, one after the other. Files are mapped, so that reading touches only the
/// pages that hold the asked tokens.
///
/// - text: a byte is a token.
/// - tokens: llm.c's .bin files (a header of 256 int32: magic 20240520 version 1 for uint16 tokens, magic 20240801
/// version 7
///   for uint32 tokens; number of tokens), and raw uint16 files (nanoGPT's) where there is no such header.
class TokenSource {
 public:
  /// Throws DataError for files that are missing, empty, or shorter than their header says.
  TokenSource(DataType type, const std::vector<std::filesystem::path>& files);

  std::int64_t size() const { return size_; }

  /// Reads the tokens from `begin` on. Throws DataError, with the file and the place in it, for a token that is not
  /// below `vocabulary`.
  void read(std::int64_t begin, std::span<std::int64_t> tokens, std::int64_t vocabulary) const;

  /// A text that differs when the data differ: sizes, and a hash of the beginning and the end of every file.
  std::string fingerprint() const;

 private:
  struct File {
    std::filesystem::path path;
    std::int64_t data_begin;   ///< in bytes
    std::int64_t token_bytes;  ///< 1, 2 or 4
    std::int64_t first;        ///< number of its first token
    std::int64_t count;
  };

  static File examine(DataType type, const std::filesystem::path& path);

  std::vector<File> files_;
  std::int64_t size_ = 0;
};

}  // namespace longnet
