#include "core/files/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace longnet {

InputFile::InputFile(const std::filesystem::path& path)
    : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {  // a pipe does not wait
  if (descriptor_ < 0) throw DataError(path.string() + ": cannot be opened: " + std::strerror(errno));
  struct stat status = {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (known && S_ISREG(status.st_mode)) {
    constexpr std::int64_t second = 1'000'000'000;
    version_ = {static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec * second + status.st_mtim.tv_nsec};
    return;
  }
  const std::string reason = known ? "is no regular file" : std::string("cannot be examined: ") + std::strerror(errno);
  ::close(descriptor_);
  throw DataError(path.string() + ": " + reason);
}

InputFile::InputFile(const std::filesystem::path& path, const Version& expected) : InputFile(path) {
  if (version_ == expected) return;
  throw DataError(path.string() + ": was written since this program opened it first; start again with data that stay");
}

InputFile::~InputFile() {
  ::close(descriptor_);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto most = std::min<std::size_t>(bytes.size(), 1U << 30);
    const auto count = ::pread(descriptor_, bytes.data(), most, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw DataError(path_.string() + ": cannot be read: " + std::strerror(errno));
    if (count == 0) throw DataError(path_.string() + ": it ends early; it has become shorter since it was opened");
    offset += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

std::string InputFile::beginning(std::size_t count) const {
  std::string text(static_cast<std::size_t>(std::min<std::uint64_t>(count, size())), '\0');
  read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace longnet
