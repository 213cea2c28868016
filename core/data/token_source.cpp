#include "core/data/token_source.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/files/hashing_file.h"
#include "core/files/mapped_file.h"

namespace longnet {
namespace {

constexpr std::int64_t llmc_header_bytes = 256 * sizeof(std::int32_t);

/// llm.c's formats: magic number, version, bytes a token.
struct TokenFormat {
  std::int32_t magic, version;
  std::int64_t token_bytes;
};
constexpr std::array<TokenFormat, 2> llmc_formats{{{20240520, 1, 2}, {20240801, 7, 4}}};

template <typename Token>
void widen(const std::byte* from, std::span<std::int64_t> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Token token;
    std::memcpy(&token, from + i * sizeof(Token), sizeof(Token));
    to[i] = static_cast<std::int64_t>(token);
  }
}

}  // namespace

TokenSource::File TokenSource::examine(DataType type, const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const auto size = static_cast<std::int64_t>(bytes.size());
  const auto fail = [&](const std::string& what) { throw DataError(path.string() + ": " + what); };
  if (size == 0) fail("the file is empty");
  if (type != DataType::Tokens) return {path, 0, 1, 0, size};

  if (size >= llmc_header_bytes) {
    std::array<std::int32_t, 3> header;
    std::memcpy(header.data(), bytes.data(), sizeof header);
    for (const TokenFormat& format : llmc_formats) {
      if (header[0] != format.magic) continue;
      if (header[1] != format.version)
        fail("version " + std::to_string(header[1]) + " of this token file is not known");
      if (header[2] <= 0 || llmc_header_bytes + header[2] * format.token_bytes > size) {
        fail("its header promises " + std::to_string(header[2]) + " tokens, but the file is too short for them");
      }
      return {path, llmc_header_bytes, format.token_bytes, 0, header[2]};
    }
  }
  if (size % 2 != 0) fail("neither an llm.c token file nor whole uint16 tokens (its size is odd)");
  return {path, 0, 2, 0, size / 2};
}

TokenSource::TokenSource(DataType type, const std::vector<std::filesystem::path>& files) {
  for (const auto& path : files) {
    File file = examine(type, path);
    file.first = size_;
    size_ += file.count;
    files_.push_back(std::move(file));
  }
}

void TokenSource::read(std::int64_t begin, std::span<std::int64_t> tokens, std::int64_t vocabulary) const {
  if (begin < 0 || begin + static_cast<std::int64_t>(tokens.size()) > size_) {
    throw DataError("tokens " + std::to_string(begin) + " and following are beyond the end of the data");
  }
  auto file = std::upper_bound(files_.begin(), files_.end(), begin,
                               [](std::int64_t token, const File& next) { return token < next.first; });
  for (--file; !tokens.empty(); ++file) {
    const std::int64_t skip = begin - file->first;
    const auto part = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(file->count - skip)));
    const MappedFile mapped(file->path);
    const std::int64_t offset = file->data_begin + skip * file->token_bytes;
    if (offset + static_cast<std::int64_t>(part.size()) * file->token_bytes >
        static_cast<std::int64_t>(mapped.bytes().size())) {
      throw DataError(file->path.string() + ": the file has become shorter since it was opened");
    }
    const std::byte* bytes = mapped.bytes().data() + offset;
    if (file->token_bytes == 1) widen<std::uint8_t>(bytes, part);
    if (file->token_bytes == 2) widen<std::uint16_t>(bytes, part);
    if (file->token_bytes == 4) widen<std::uint32_t>(bytes, part);
    const auto outside =
        std::find_if(part.begin(), part.end(), [&](std::int64_t token) { return token >= vocabulary; });
    if (outside != part.end()) {
      throw DataError(file->path.string() + ": token " + std::to_string(skip + (outside - part.begin())) + " is " +
                      std::to_string(*outside) + ", but model.vocabulary is " + std::to_string(vocabulary));
    }
    begin += static_cast<std::int64_t>(part.size());
    tokens = tokens.subspan(part.size());
  }
}

std::string TokenSource::fingerprint() const {
  std::string text;
  for (const File& file : files_) text += longnet::fingerprint(file.path);
  return text;
}

}  // namespace longnet
