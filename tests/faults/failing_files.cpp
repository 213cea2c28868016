// A library to be loaded before all others (LD_PRELOAD): one file operation of a program fails, as a disk, a network or a signal may
// make it fail. From the environment:
//
//   FAIL_BELOW   operations on paths below this folder count, others do not
//   FAIL_AT      number of the operation that fails, from 1; 0: none
//   FAIL_WITH    EIO, ENOSPC, EINTR; short: a read or write of half of what was asked for (of others: none); stop: it works, after the
//                process has stopped (SIGSTOP) and gone on
//   FAIL_RANK    of an MPI job: the rank whose operations count; without it, all ranks' count, each for itself
//   FAIL_LOG     a file that gets the name and path of every operation that counts
//
// Counted are operations of the whole process, in the order in which they come.

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

std::string setting(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

/// What is to become of an operation.
enum class Fate { Works, Fails, HalfWorks };

Fate fate_of(const char* operation, const std::string& path) {
  static const std::string below = setting("FAIL_BELOW"), with = setting("FAIL_WITH"), log = setting("FAIL_LOG");
  static const long at = std::strtol(setting("FAIL_AT").c_str(), nullptr, 10);
  static std::atomic<long> count = 0;
  static const bool other_rank =
      !setting("FAIL_RANK").empty() && setting("FAIL_RANK") != setting("OMPI_COMM_WORLD_RANK");
  if (below.empty() || other_rank || !path.starts_with(below)) return Fate::Works;
  const long number = ++count;
  if (!log.empty()) {
    static const int descriptor =
        next<int(const char*, int, ...)>("open")(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    const std::string line = std::to_string(number) + " " + operation + " " + path + "\n";
    [[maybe_unused]] const auto written =
        next<ssize_t(int, const void*, size_t)>("write")(descriptor, line.data(), line.size());
  }
  if (number != at) return Fate::Works;
  if (with == "stop") {
    ::raise(SIGSTOP);
    return Fate::Works;
  }
  if (with == "short") return Fate::HalfWorks;
  errno = with == "EIO" ? EIO : with == "ENOSPC" ? ENOSPC : EINTR;
  return Fate::Fails;
}

Fate fate_of(const char* operation, int descriptor) {
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const auto size = ::readlink(link.c_str(), path, sizeof path);
  return size < 0 ? Fate::Works : fate_of(operation, std::string(path, static_cast<std::size_t>(size)));
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return fate_of("open", std::string(path)) == Fate::Fails
             ? -1
             : next<int(const char*, int, ...)>("open")(path, flags, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  return fate_of("fopen", std::string(path)) == Fate::Fails
             ? nullptr
             : next<FILE*(const char*, const char*)>("fopen64")(path, mode);
}

DIR* opendir(const char* path) {
  return fate_of("opendir", std::string(path)) == Fate::Fails ? nullptr : next<DIR*(const char*)>("opendir")(path);
}

ssize_t write(int descriptor, const void* bytes, size_t count) {
  const Fate fate = fate_of("write", descriptor);
  if (fate == Fate::Fails) return -1;
  return next<ssize_t(int, const void*, size_t)>("write")(descriptor, bytes,
                                                          fate == Fate::HalfWorks ? count / 2 : count);
}

ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t offset) {
  const Fate fate = fate_of("pwrite", descriptor);
  if (fate == Fate::Fails) return -1;
  return next<ssize_t(int, const void*, size_t, off_t)>("pwrite")(descriptor, bytes,
                                                                  fate == Fate::HalfWorks ? count / 2 : count, offset);
}

ssize_t read(int descriptor, void* bytes, size_t count) {
  const Fate fate = fate_of("read", descriptor);
  if (fate == Fate::Fails) return -1;
  return next<ssize_t(int, void*, size_t)>("read")(descriptor, bytes,
                                                   fate == Fate::HalfWorks && count > 1 ? count / 2 : count);
}

ssize_t pread(int descriptor, void* bytes, size_t count, off_t offset) {
  const Fate fate = fate_of("pread", descriptor);
  if (fate == Fate::Fails) return -1;
  return next<ssize_t(int, void*, size_t, off_t)>("pread")(
      descriptor, bytes, fate == Fate::HalfWorks && count > 1 ? count / 2 : count, offset);
}

int fsync(int descriptor) {
  return fate_of("fsync", descriptor) == Fate::Fails ? -1 : next<int(int)>("fsync")(descriptor);
}

int ftruncate(int descriptor, off_t size) noexcept {
  return fate_of("ftruncate", descriptor) == Fate::Fails ? -1 : next<int(int, off_t)>("ftruncate")(descriptor, size);
}

/// A close that fails has closed all the same.
int close(int descriptor) {
  const Fate fate = fate_of("close", descriptor);
  const int reason = errno, result = next<int(int)>("close")(descriptor);
  if (fate != Fate::Fails) return result;
  errno = reason;
  return -1;
}

int rename(const char* from, const char* to) noexcept {
  return fate_of("rename", std::string(to)) == Fate::Fails ? -1
                                                           : next<int(const char*, const char*)>("rename")(from, to);
}

int mkdir(const char* path, mode_t mode) noexcept {
  return fate_of("mkdir", std::string(path)) == Fate::Fails ? -1 : next<int(const char*, mode_t)>("mkdir")(path, mode);
}

int unlink(const char* path) noexcept {
  return fate_of("unlink", std::string(path)) == Fate::Fails ? -1 : next<int(const char*)>("unlink")(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  return fate_of("unlinkat", folder) == Fate::Fails ? -1
                                                    : next<int(int, const char*, int)>("unlinkat")(folder, path, flags);
}

int remove(const char* path) noexcept {
  return fate_of("remove", std::string(path)) == Fate::Fails ? -1 : next<int(const char*)>("remove")(path);
}

int rmdir(const char* path) noexcept {
  return fate_of("rmdir", std::string(path)) == Fate::Fails ? -1 : next<int(const char*)>("rmdir")(path);
}

int statvfs(const char* path, struct statvfs* result) noexcept {
  return fate_of("statvfs", std::string(path)) == Fate::Fails
             ? -1
             : next<int(const char*, struct statvfs*)>("statvfs")(path, result);
}
}
