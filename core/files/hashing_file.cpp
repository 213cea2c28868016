#include "core/files/hashing_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/files/mapped_file.h"

namespace longnet {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* what) {
  throw CheckpointError(path.string() + ": cannot " + what + ": " + std::strerror(errno));
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
      descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)),
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

std::string fingerprint(const std::filesystem::path& path) {
  constexpr std::size_t edge = 1 << 16;
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const auto length = std::min(edge, bytes.size());
  return path.filename().string() + " " + std::to_string(bytes.size()) + " " + digest_of(bytes.first(length)).xxh3_128 +
         " " + digest_of(bytes.last(length)).xxh3_128 + "\n";
}

void synchronize_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(folder, "open");
  const bool done = ::fsync(descriptor) == 0;
  ::close(descriptor);
  if (!done) fail(folder, "synchronize");
}

}  // namespace longnet
