#include "core/data/token_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"

namespace longnet {
namespace {

[[noreturn]] void fail(const InputFile& file, const std::string& what) {
  throw DataError(file.path().string() + ": " + what);
}

/// The header's promise about the tokens must be the file's whole content.
TokenFormat exactly(const InputFile& file, const TokenFormat& format) {
  const auto rest = static_cast<std::int64_t>(file.size()) - format.begin;
  if (format.count > 0 && rest % token_bytes(format.type) == 0 && rest / token_bytes(format.type) == format.count) {
    return format;
  }
  fail(file, "its header promises " + std::to_string(format.count) + " tokens (" + config_name(format.type) +
                 "), but " + std::to_string(rest) + " bytes follow it");
}

std::optional<TokenFormat> llmc(const InputFile& file) {
  struct Kind {
    std::int32_t magic, version;
    TokenType type;
  };
  constexpr std::array<Kind, 2> kinds{{{20240520, 1, TokenType::Uint16}, {20240801, 7, TokenType::Uint32}}};
  constexpr std::int64_t header_bytes = 256 * sizeof(std::int32_t);
  std::array<std::int32_t, 3> header{};
  if (file.size() < sizeof header) return {};
  file.read(0, std::as_writable_bytes(std::span(header)));
  for (const Kind& kind : kinds) {
    if (header[0] != kind.magic) continue;
    if (header[1] != kind.version) {
      fail(file, "version " + std::to_string(header[1]) + " of llm.c's token files is not known");
    }
    return exactly(file, {kind.type, header_bytes, header[2]});
  }
  return {};
}

/// What follows `key` in the Python dictionary of a .npy header, up to a comma outside of parentheses.
std::string npy_value(const std::string& header, const std::string& key) {
  auto begin = header.find("'" + key + "':");
  if (begin == std::string::npos) return {};
  begin = header.find_first_not_of(' ', begin + key.size() + 3);
  if (begin == std::string::npos) return {};
  const auto end = header[begin] == '(' ? header.find(')', begin) + 1 : header.find_first_of(",}", begin);
  return header.substr(begin, end - begin);
}

std::optional<TokenFormat> npy(const InputFile& file) {
  constexpr std::string_view magic("\x93NUMPY", 6);
  const std::string start = file.beginning(12);
  if (!start.starts_with(magic)) return {};
  if (start.size() < 12) fail(file, "its .npy header ends early");
  const auto byte = [&](std::size_t place) {
    return static_cast<std::size_t>(static_cast<unsigned char>(start[place]));
  };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) fail(file, "version " + std::to_string(version) + " of .npy is not known");
  const std::size_t begin = version == 1 ? 10 : 12;
  const std::size_t length = byte(8) + (byte(9) << 8) + (version == 1 ? 0 : (byte(10) << 16) + (byte(11) << 24));
  if (length > file.size() - begin || length > (1U << 20)) fail(file, "its .npy header ends early");
  const std::string header = file.beginning(begin + length).substr(begin);

  constexpr std::array<std::pair<const char*, TokenType>, 5> types{{{"'|u1'", TokenType::Uint8},
                                                                    {"'<u2'", TokenType::Uint16},
                                                                    {"'<u4'", TokenType::Uint32},
                                                                    {"'<i4'", TokenType::Int32},
                                                                    {"'<i8'", TokenType::Int64}}};
  const std::string type = npy_value(header, "descr"), shape = npy_value(header, "shape");
  const auto known = std::find_if(types.begin(), types.end(), [&](const auto& entry) { return type == entry.first; });
  if (known == types.end()) {
    const std::string told = type.empty()            ? "a type that its header does not tell"
                             : type.starts_with('[') ? "a type of several fields"
                                                     : "type " + type;
    fail(file, "its .npy array is of " + told + ", not of uint8, uint16, uint32, int32 or int64");
  }
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(shape.data() + 1, shape.data() + shape.size(), count);
  if (shape.empty() || error != std::errc() || std::string_view(end) != ",)") {
    fail(file, "its .npy array has the shape " + shape + ", not one dimension");
  }
  return exactly(file, {known->second, static_cast<std::int64_t>(begin + length), count});
}

/// Formats whose headers would otherwise pass as tokens.
void refuse_other_formats(const InputFile& file) {
  struct Other {
    std::string_view magic;
    const char* what;
  };
  constexpr std::array<Other, 6> others{{{"MMIDIDX", "the index of Megatron's data; name the .bin beside it"},
                                         {"BIN.TOK", "a token file of llmq, which is not read"},
                                         {"PK\x03\x04", "a zip archive"},
                                         {"\x1f\x8b", "compressed with gzip"},
                                         {"\x28\xb5\x2f\xfd", "compressed with zstd"},
                                         {"PAR1", "a Parquet file"}}};
  const std::string start = file.beginning(8);
  for (const Other& other : others) {
    if (start.starts_with(other.magic)) fail(file, std::string("is no file of tokens, but ") + other.what);
  }
}

/// The beginning, the middle and the end of a file.
std::vector<std::byte> sampled(const InputFile& file) {
  constexpr std::uint64_t most = 1 << 14, unit = 16;
  std::vector<std::byte> sample(static_cast<std::size_t>(std::min(most, file.size() / unit * unit)));
  std::vector<std::byte> all;
  const std::uint64_t last = (file.size() - sample.size()) / unit * unit;
  for (const std::uint64_t offset : {std::uint64_t{0}, last / 2 / unit * unit, last}) {
    file.read(offset, sample);
    all.insert(all.end(), sample.begin(), sample.end());
  }
  return all;
}

/// Whether the numbers of `bytes` bytes look like halves of larger ones: every second is 0 or nearly, and the others are
/// not.
bool looks_wider(const std::vector<std::byte>& sample, std::int64_t bytes) {
  constexpr std::uint64_t nearly_zero = 16;
  const auto width = static_cast<std::size_t>(bytes);
  std::array<std::uint64_t, 2> largest{};
  for (std::size_t place = 0; place + 2 * width <= sample.size(); place += 2 * width) {
    for (const std::size_t half : {0U, 1U}) {
      std::uint64_t number = 0;
      std::memcpy(&number, sample.data() + place + half * width, width);
      largest[half] = std::max(largest[half], number);
    }
  }
  if (largest[1] == 0) return largest[0] > 0;
  return largest[1] < nearly_zero && largest[0] >= nearly_zero * (largest[1] + 1);
}

/// Whether nearly all bytes are letters, digits, signs and blanks.
bool looks_like_text(const std::vector<std::byte>& sample) {
  const auto printable = std::count_if(sample.begin(), sample.end(), [](std::byte byte) {
    const auto code = static_cast<unsigned char>(byte);
    return (code >= ' ' && code <= '~') || (code >= '\t' && code <= '\r');
  });
  return !sample.empty() && printable * 20 > static_cast<std::int64_t>(sample.size()) * 19;
}

TokenFormat declared_format(const InputFile& file, TokenType declared) {
  refuse_other_formats(file);
  const std::int64_t bytes = token_bytes(declared), size = static_cast<std::int64_t>(file.size());
  if (size % bytes != 0) {
    fail(file, "its size, " + std::to_string(size) +
                   " bytes, is no multiple of a token's (data.token_type: " + config_name(declared) + ")");
  }
  constexpr std::uint64_t least = 64;  // bytes, to tell anything from
  const auto sample = file.size() < least ? std::vector<std::byte>() : sampled(file);
  if (bytes > 1 && looks_like_text(sample)) {
    fail(file, std::string("data.token_type is ") + config_name(declared) +
                   ", but this is text: name the files of tokens alone (as *.bin), or use data.type: text");
  }
  if (bytes < token_bytes(TokenType::Int64) && looks_wider(sample, bytes)) {
    fail(file, std::string("data.token_type is ") + config_name(declared) +
                   ", but every second number is 0 or close to it: these look like tokens of twice as many bits or "
                   "more; if they are not, a "
                   "header says so (.npy)");
  }
  return {declared, 0, size / bytes};
}

}  // namespace

std::int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::Uint8:
      return 1;
    case TokenType::Uint16:
      return 2;
    case TokenType::Uint32:
    case TokenType::Int32:
      return 4;
    case TokenType::Int64:
      return 8;
    case TokenType::Automatic:
      break;
  }
  throw Error("tokens of no known width");
}

TokenFormat token_format(const InputFile& file, TokenType declared) {
  auto format = llmc(file);
  if (!format) format = npy(file);
  if (!format && declared != TokenType::Automatic) return declared_format(file, declared);
  if (!format) {
    refuse_other_formats(file);
    fail(file,
         "has no header that says how its tokens are stored; where it holds nothing but tokens, as nanoGPT's files "
         "and Megatron's .bin do, say so: data.token_type: uint16 (or uint8, uint32, int32, int64)");
  }
  if (declared != TokenType::Automatic && declared != format->type) {
    fail(file, std::string("data.token_type is ") + config_name(declared) + ", but its header says " +
                   config_name(format->type));
  }
  return *format;
}

}  // namespace longnet
