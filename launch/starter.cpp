// bin/longnet: holds signals back, then becomes the program (libexec/longnet-program), with the same process number.
//
// The program's libraries take up to a second to load, before the first line of its own runs. A signal that asks for a
// checkpoint must not kill it then. Blocked signals stay blocked, and pending ones pending, over execve(2); SignalWatch
// takes them up. Therefore this file uses no library but those of the languages.

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

int main(int /*argc*/, char** argv) {
  sigset_t held;
  sigemptyset(&held);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&held, signal);
  sigprocmask(SIG_BLOCK, &held, nullptr);

  std::error_code error;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto program = own.parent_path().parent_path() / "libexec" / "longnet-program";
  ::execv(program.c_str(), argv);  // NOLINT(clang-analyzer-optin.taint.GenericTaint): /proc is the system's own word
  std::fprintf(stderr, "longnet: %s cannot be started: %s; it belongs beside the folder of %s\n", program.c_str(),
               std::strerror(errno), own.c_str());
  return 1;
}
