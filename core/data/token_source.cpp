#include "core/data/token_source.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/files/hashing_file.h"

namespace longnet {
namespace {

template <typename Token>
void widen(std::span<const std::byte> from, std::span<std::int64_t> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Token token;
    std::memcpy(&token, from.data() + i * sizeof(Token), sizeof(Token));
    to[i] = static_cast<std::int64_t>(token);
  }
}

void widen(TokenType type, std::span<const std::byte> from, std::span<std::int64_t> to) {
  switch (type) {
    case TokenType::Uint8:
      return widen<std::uint8_t>(from, to);
    case TokenType::Uint16:
      return widen<std::uint16_t>(from, to);
    case TokenType::Uint32:
      return widen<std::uint32_t>(from, to);
    case TokenType::Int32:
      return widen<std::int32_t>(from, to);
    case TokenType::Int64:
      return widen<std::int64_t>(from, to);
    case TokenType::Automatic:
      break;
  }
  throw Error("tokens of no known type");
}

}  // namespace

TokenSource::TokenSource(const DataConfig& config, const std::vector<std::filesystem::path>& files,
                         std::int64_t vocabulary)
    : vocabulary_(vocabulary) {
  for (const auto& path : files) {
    const InputFile file(path);
    const auto size = static_cast<std::int64_t>(file.size());
    if (size == 0) throw DataError(path.string() + ": the file is empty");
    const bool tokens = config.type == DataType::Tokens;
    const auto format = tokens ? token_format(file, config.token_type) : TokenFormat{TokenType::Uint8, 0, size};
    files_.push_back({path, file.version(), format, size_});
    size_ += format.count;
  }
}

void TokenSource::read(std::int64_t begin, std::span<std::int64_t> tokens) const {
  if (begin < 0 || begin + static_cast<std::int64_t>(tokens.size()) > size_) {
    throw DataError("tokens " + std::to_string(begin) + " and following are beyond the end of the data");
  }
  auto file = std::upper_bound(files_.begin(), files_.end(), begin,
                               [](std::int64_t token, const File& next) { return token < next.first; });
  for (--file; !tokens.empty(); ++file) {
    const std::int64_t skip = begin - file->first;
    const auto part = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(file->format.count - skip)));
    read_part(*file, skip, part);
    begin += static_cast<std::int64_t>(part.size());
    tokens = tokens.subspan(part.size());
  }
}

void TokenSource::read_part(const File& file, std::int64_t skip, std::span<std::int64_t> tokens) const {
  const std::int64_t bytes = token_bytes(file.format.type);
  std::vector<std::byte> stored(tokens.size() * static_cast<std::size_t>(bytes));
  InputFile(file.path, file.version).read(static_cast<std::uint64_t>(file.format.begin + skip * bytes), stored);
  widen(file.format.type, stored, tokens);
  const auto outside =
      std::find_if(tokens.begin(), tokens.end(), [&](std::int64_t token) { return token < 0 || token >= vocabulary_; });
  if (outside == tokens.end()) return;
  throw DataError(file.path.string() + ": token " + std::to_string(skip + (outside - tokens.begin())) + " is " +
                  std::to_string(*outside) + ", but model.vocabulary is " + std::to_string(vocabulary_));
}

std::string TokenSource::fingerprint() const {
  std::string text;
  for (const File& file : files_) text += longnet::fingerprint(file.path);
  return text;
}

}  // namespace longnet
