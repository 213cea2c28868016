#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "core/error.h"
#include "core/failure.h"
#include "core/host_name.h"
#include "distributed/agreement.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/mpi/mpi_environment.h"
#include "launch/command_line.h"
#include "launch/job/deadline.h"
#include "launch/job/process.h"

namespace longnet {
namespace {

/// `code`, unless what was printed may have been on its way to a disk that is full.
int finish_output(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fputs("longnet: standard output cannot be written: what was printed is incomplete\n", stderr);
  return FileError("").exit_code();
}

/// How long MPI may take to start and to end, when no configuration says so yet or any more.
std::chrono::seconds start_timeout() {
  constexpr int default_seconds = 600;
  const char* text = std::getenv("LONGNET_START_TIMEOUT_SECONDS");
  int seconds = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), seconds);
  return std::chrono::seconds(seconds > 0 ? seconds : default_seconds);
}

[[noreturn]] void end_hanging(const std::string& what) {
  std::fprintf(stderr,
               "longnet: %s did not end within %lld s on %s: another rank may be stopped, gone or out of reach\n",
               what.c_str(), static_cast<long long>(start_timeout().count()), host_name().c_str());
  std::_Exit(CommunicationError("").exit_code());
}

int run_command(int argc, char** argv, const MpiEnvironment& mpi, Process& process, Deadline& deadline) {
  auto world = make_mpi_world();
  world->set_timeout(start_timeout());
  deadline.disarm();
  process.start_up.finished("MPI");
  const bool first = world->rank() == 0;
  Request request;
  agree(*world, [&] {
    request = parse_command_line(argc, argv, [&](const CommunicationError& error) {
      std::fprintf(stderr, "longnet: %s\n", error.what());
      mpi.abort(error.exit_code());
    });
  });
  require_same(*world, "command", request.command);
  if (request.text) {
    if (first) std::fputs(request.text->c_str(), stdout);
    return finish_output(0);
  }
  if (!request.saves) process.signals.release();
  const int code = request.run(std::move(world), process);
  return request.saves ? code : finish_output(code);  // a training's results are in its run folder
}

int run(int argc, char** argv) {
  Process process;
  Deadline deadline(start_timeout(), end_hanging);
  deadline.arm("the start of MPI");
  const MpiEnvironment mpi(argc, argv);
  const int rank = mpi.world_rank();
  try {
    const int code = run_command(argc, argv, mpi, process, deadline);
    deadline.arm("the end of MPI");
    return code;
  } catch (const AgreedError& error) {
    if (rank == 0) std::fprintf(stderr, "longnet: %s\n", one_line(error.what()).c_str());
    deadline.arm("the end of MPI");
    return error.exit_code();
  } catch (const std::exception& error) {  // this rank's alone: the others may wait for it
    const Failure failure = failure_of(error);
    std::fprintf(stderr, "longnet: rank %d: %s\n", rank, one_line(failure.message).c_str());
    mpi.abort(failure.exit_code);
  }
}

}  // namespace
}  // namespace longnet

int main(int argc, char** argv) {
  try {
    return longnet::run(argc, argv);
  } catch (const std::exception& error) {  // MPI itself did not start
    std::fprintf(stderr, "longnet: %s\n", error.what());
    return 6;
  }
}
