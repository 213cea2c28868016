#include <cstdio>
#include <exception>

#include "core/error.h"
#include "core/failure.h"
#include "distributed/agreement.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/mpi/mpi_environment.h"
#include "launch/command_line.h"
#include "launch/job/signals.h"

namespace longnet {
namespace {

/// `code`, unless what was printed may have been on its way to a disk that is full.
int finish_output(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fputs("longnet: standard output cannot be written: what was printed is incomplete\n", stderr);
  return FileError("").exit_code();
}

int run_command(int argc, char** argv, const MpiEnvironment& mpi, SignalWatch& signals) {
  auto world = make_mpi_world();
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
  if (!request.saves) signals.release();
  const int code = request.run(std::move(world), signals);
  return request.saves ? code : finish_output(code);  // a training's results are in its run folder
}

int run(int argc, char** argv) {
  SignalWatch signals;
  const MpiEnvironment mpi(argc, argv);
  const int rank = mpi.world_rank();
  try {
    return run_command(argc, argv, mpi, signals);
  } catch (const AgreedError& error) {
    if (rank == 0) std::fprintf(stderr, "longnet: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {  // this rank's alone: the others may wait for it
    const Failure failure = failure_of(error);
    std::fprintf(stderr, "longnet: rank %d: %s\n", rank, failure.message.c_str());
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
