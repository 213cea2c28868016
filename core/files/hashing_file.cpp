#include "core/files/hashing_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"

namespace longnet {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* what) {
  throw FileError(path.string() + ": cannot " + what + ": " + std::strerror(errno));
}

std::string hexadecimal(XXH128_hash_t hash) {
  std::array<char, 33> text;
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text.data();
}

}  // namespace

HashingFile::HashingFile(const std::filesystem::path& path)
    : path_(path),
      descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644)),
      hash_(XXH3_createState(), &XXH3_freeState) {
  if (descriptor_ < 0) fail(path_, "create");
  XXH3_128bits_reset(hash_.get());
}

HashingFile::~HashingFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void HashingFile::write(std::span<const std::byte> data) {
  XXH3_128bits_update(hash_.get(), data.data(), data.size());
  bytes_ += data.size();
  while (!data.empty()) {
    const auto written = ::write(descriptor_, data.data(), std::min<std::size_t>(data.size(), 1U << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path_, "write");
    data = data.subspan(static_cast<std::size_t>(written));
  }
}

FileDigest HashingFile::commit() {
  if (::fsync(descriptor_) != 0) fail(path_, "synchronize");
  if (::close(std::exchange(descriptor_, -1)) != 0) fail(path_, "close");
  return {bytes_, hexadecimal(XXH3_128bits_digest(hash_.get()))};
}

FileDigest digest_of(std::span<const std::byte> data) {
  return {data.size(), hexadecimal(XXH3_128bits(data.data(), data.size()))};
}

FileDigest digest_of(const InputFile& file) {
  return HashingReader(file).finish();
}

HashingReader::HashingReader(const InputFile& file) : file_(file), hash_(XXH3_createState(), &XXH3_freeState) {
  XXH3_128bits_reset(hash_.get());
}

void HashingReader::read(std::span<std::byte> bytes) {
  constexpr std::size_t piece = std::size_t{1} << 20;  // is still in the cache when it is hashed
  while (!bytes.empty()) {
    const auto now = bytes.first(std::min(piece, bytes.size()));
    file_.read(offset_, now);
    XXH3_128bits_update(hash_.get(), now.data(), now.size());
    offset_ += now.size();
    bytes = bytes.subspan(now.size());
  }
}

void HashingReader::skip_to(std::uint64_t offset) {
  std::vector<std::byte> scratch(std::size_t{1} << 20);
  while (offset_ < offset) {
    const std::uint64_t left = offset - offset_;
    read(std::span(scratch).first(static_cast<std::size_t>(std::min<std::uint64_t>(left, scratch.size()))));
  }
}

FileDigest HashingReader::finish() {
  skip_to(file_.size());
  return {offset_, hexadecimal(XXH3_128bits_digest(hash_.get()))};
}

std::string fingerprint(const std::filesystem::path& path) {
  constexpr std::uint64_t block = 1 << 16, blocks = 64;
  const InputFile file(path);
  std::vector<std::byte> sampled;
  if (file.size() <= block * blocks) {
    sampled.resize(static_cast<std::size_t>(file.size()));
    file.read(0, sampled);
  } else {
    sampled.resize(block * blocks);
    for (std::uint64_t number = 0; number < blocks; ++number) {
      const std::uint64_t last = file.size() - block;
      const std::uint64_t offset = number + 1 == blocks ? last : last / (blocks - 1) * number;
      file.read(offset, std::span(sampled).subspan(number * block, block));
    }
  }
  return std::to_string(file.size()) + " " + digest_of(sampled).xxh3_128 + "\n";
}

void synchronize_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(folder, "open");
  const bool done = ::fsync(descriptor) == 0;
  ::close(descriptor);
  if (!done) fail(folder, "synchronize");
}

}  // namespace longnet
