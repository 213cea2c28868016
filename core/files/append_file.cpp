#include "core/files/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace longnet {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path) {
  throw FileError(path.string() + ": cannot be written: " + std::strerror(errno));
}

}  // namespace

AppendFile::AppendFile(const std::filesystem::path& path)
    : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644)), size_(0) {
  if (descriptor_ < 0) fail(path);
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  if (end >= 0) {
    size_ = static_cast<std::uint64_t>(end);
    return;
  }
  ::close(descriptor_);
  fail(path);
}

AppendFile::~AppendFile() {
  ::close(descriptor_);
}

bool AppendFile::is_whole() const {
  struct stat here = {}, there = {};
  return ::fstat(descriptor_, &here) == 0 && ::stat(path_.c_str(), &there) == 0 && here.st_dev == there.st_dev &&
         here.st_ino == there.st_ino && static_cast<std::uint64_t>(here.st_size) >= size_;
}

void AppendFile::append(std::string_view record) {
  for (std::uint64_t written = 0; written < record.size();) {
    const auto rest = record.substr(static_cast<std::size_t>(written));
    const auto count = ::pwrite(descriptor_, rest.data(), rest.size(), static_cast<off_t>(size_ + written));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int reason = count < 0 ? errno : ENOSPC;
      // Should this fail, too, the next record takes the same place.
      if (::ftruncate(descriptor_, static_cast<off_t>(size_)) != 0) errno = 0;
      errno = reason;
      fail(path_);
    }
    written += static_cast<std::uint64_t>(count);
  }
  size_ += record.size();
}

}  // namespace longnet
