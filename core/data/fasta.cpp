#include "core/data/fasta.h"

#include <lzma.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <span>

#include "core/error.h"
#include "core/files/input_file.h"
#include "core/random.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

constexpr std::uint8_t record_token = 5;
constexpr std::uint8_t no_token = 255;

constexpr std::array<std::uint8_t, 256> base_tokens = [] {
  std::array<std::uint8_t, 256> tokens{};
  tokens.fill(no_token);
  const auto set = [&](const char* letters, std::uint8_t token) {
    for (; *letters != '\0'; ++letters) {
      tokens[static_cast<unsigned char>(*letters)] = token;
      tokens[static_cast<unsigned char>(*letters + ('a' - 'A'))] = token;
    }
  };
  set("A", 0);
  set("C", 1);
  set("G", 2);
  set("TU", 3);
  set("NRYSWKMBDHV", 4);
  return tokens;
}();

/// Turns the text of a FASTA file, piece by piece, into tokens.
class Tokenizer {
 public:
  Tokenizer(const fs::path& source, std::ostream& out) : source_(source), out_(out) {}

  void operator()(std::span<const char> text) {
    std::string tokens;
    for (const char letter : text) {
      if (letter == '\n') {
        ++line_;
        state_ = State::LineStart;
      } else if (state_ == State::LineStart && letter == '>') {
        state_ = State::Header;
        tokens += static_cast<char>(record_token);
        has_record_ = true;
      } else if (state_ != State::Header && letter != '\r' && letter != ' ') {
        state_ = State::Bases;
        tokens += static_cast<char>(token_of(letter));
      }
    }
    out_.write(tokens.data(), static_cast<std::streamsize>(tokens.size()));
  }

 private:
  enum class State { LineStart, Header, Bases };

  std::uint8_t token_of(char letter) const {
    const auto fail = [&](const std::string& what) {
      throw DataError(source_.string() + ":" + std::to_string(line_) + ": " + what);
    };
    if (!has_record_) fail("not a FASTA file: it does not begin with '>'");
    const auto token = base_tokens[static_cast<unsigned char>(letter)];
    if (token == no_token) fail(std::string("'") + letter + "' is no base");
    return token;
  }

  const fs::path& source_;
  std::ostream& out_;
  State state_ = State::LineStart;
  std::int64_t line_ = 1;
  bool has_record_ = false;
};

constexpr std::size_t piece_bytes = 1 << 20;

/// Plain or gzip text: zlib reads both.
void read_plain(const fs::path& path, Tokenizer& tokenizer) {
  InputFile(path).size();  // refuses what is no file: gzopen would wait for a pipe
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(path.c_str(), "rb"), &gzclose);
  if (!file) throw DataError(path.string() + ": cannot be opened");
  std::vector<char> piece(piece_bytes);
  int count = 0;
  while ((count = gzread(file.get(), piece.data(), static_cast<unsigned>(piece.size()))) > 0) {
    tokenizer(std::span(piece).first(static_cast<std::size_t>(count)));
  }
  int error = Z_OK;
  const char* message = gzerror(file.get(), &error);
  if (count < 0 || (error != Z_OK && error != Z_STREAM_END))
    throw DataError(path.string() + ": broken gzip data: " + message);
}

void read_xz(const fs::path& path, Tokenizer& tokenizer) {
  const InputFile file(path);
  lzma_stream stream = LZMA_STREAM_INIT;
  const std::unique_ptr<lzma_stream, decltype(&lzma_end)> guard(&stream, &lzma_end);
  if (lzma_stream_decoder(&stream, UINT64_MAX, LZMA_CONCATENATED) != LZMA_OK) {
    throw DataError(path.string() + ": the xz decoder cannot start");
  }
  std::vector<char> piece(piece_bytes);
  std::vector<std::byte> compressed(piece_bytes);
  std::uint64_t offset = 0;
  for (lzma_ret status = LZMA_OK; status != LZMA_STREAM_END;) {
    stream.next_out = reinterpret_cast<std::uint8_t*>(piece.data());
    stream.avail_out = piece.size();
    if (stream.avail_in == 0 && offset < file.size()) {
      const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(compressed.size(), file.size() - offset));
      file.read(offset, std::span(compressed).first(count));
      offset += count;
      stream.next_in = reinterpret_cast<const std::uint8_t*>(compressed.data());
      stream.avail_in = count;
    }
    status = lzma_code(&stream, offset < file.size() ? LZMA_RUN : LZMA_FINISH);
    if (status != LZMA_OK && status != LZMA_STREAM_END) throw DataError(path.string() + ": broken xz data");
    tokenizer(std::span(piece).first(piece.size() - stream.avail_out));
  }
}

/// A name that changes with the source file.
fs::path cache_name(const fs::path& source) {
  const auto absolute = fs::absolute(source).string();
  std::uint64_t key = hash({static_cast<std::uint64_t>(fs::file_size(source)),
                            static_cast<std::uint64_t>(fs::last_write_time(source).time_since_epoch().count())});
  for (const char letter : absolute) key = hash({key, static_cast<unsigned char>(letter)});
  return source.filename().string() + "-" + std::to_string(key) + ".tokens";
}

void write_tokens(const fs::path& source, const fs::path& target) {
  const fs::path partial = target.string() + ".partial-" + std::to_string(::getpid());
  std::ofstream out(partial, std::ios::binary);
  if (!out) throw DataError(partial.string() + ": cannot be created");
  Tokenizer tokenizer(source, out);
  source.extension() == ".xz" ? read_xz(source, tokenizer) : read_plain(source, tokenizer);
  out.close();
  if (!out) throw DataError(partial.string() + ": cannot be written; is the disk full?");
  fs::rename(partial, target);  // readers see the whole file or none
}

}  // namespace

std::vector<fs::path> cache_fasta(const std::vector<fs::path>& sources, const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw DataError(folder.string() + ": cannot be created: " + error.message());
  std::vector<fs::path> targets;
  for (const fs::path& source : sources) {
    targets.push_back(folder / cache_name(source));
    if (!fs::exists(targets.back())) write_tokens(source, targets.back());
  }
  return targets;
}

}  // namespace longnet
