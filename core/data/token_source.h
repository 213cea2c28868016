#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/configuration/configuration.h"
#include "core/data/token_format.h"
#include "core/files/input_file.h"

namespace longnet {

/// A long row of tokens that lies in files, one after the other; reading touches only what is asked for.
///
/// - text: a byte is a token
/// - tokens: see token_format.h
class TokenSource {
 public:
  /// Tokens must be below `vocabulary`. Throws DataError for files that are missing, empty, or none of tokens.
  TokenSource(const DataConfig& config, const std::vector<std::filesystem::path>& files, std::int64_t vocabulary);

  std::int64_t size() const { return size_; }

  /// Reads the tokens from `begin` on. Throws DataError, with the file and the place in it, for a token that is not
  /// below the vocabulary, or negative.
  void read(std::int64_t begin, std::span<std::int64_t> tokens) const;

  /// A text that differs when the data differ: see fingerprint in hashing_file.h.
  std::string fingerprint() const;

 private:
  struct File {
    std::filesystem::path path;
    InputFile::Version version;
    TokenFormat format;
    std::int64_t first;  ///< number of its first token
  };

  void read_part(const File& file, std::int64_t skip, std::span<std::int64_t> tokens) const;

  std::int64_t vocabulary_;
  std::vector<File> files_;
  std::int64_t size_ = 0;
};

}  // namespace longnet
