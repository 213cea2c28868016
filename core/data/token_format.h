#pragma once

#include <cstdint>
#include <filesystem>

#include "core/configuration/configuration.h"
#include "core/files/input_file.h"

namespace longnet {

/// How tokens lie in a file: little-endian whole numbers of one width.
struct TokenFormat {
  TokenType type;
  std::int64_t begin;  ///< byte of the first token
  std::int64_t count;
};

std::int64_t token_bytes(TokenType type);

/// Finds out from the file's header:
///
/// - llm.c's .bin: 256 int32, of which magic number 20240520 and version 1 for uint16, or 20240801 and 7 for uint32;
///   then the number of tokens
/// - NumPy's .npy, versions 1 to 3: one dimension of uint8, uint16, uint32, int32 or int64
///
/// A file without a header says nothing about its tokens: it is read only where the user has declared their type
/// (data.token_type). Throws DataError for all other files, for one whose header does not fit its size, and for one
/// that is not what was declared: that has another format's header, is text, or looks like wider tokens.
TokenFormat token_format(const InputFile& file, TokenType declared);

}  // namespace longnet
