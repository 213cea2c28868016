#include "distributed/mpi/mpi_environment.h"

#include <mpi.h>

#include <cstdlib>

#include "core/error.h"
#include "distributed/mpi/mpi_error.h"

namespace longnet {

MpiEnvironment::MpiEnvironment(int& argc, char**& argv) {
  int provided = 0;
  LONGNET_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided));
  LONGNET_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  LONGNET_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
  if (provided < MPI_THREAD_MULTIPLE) {
    throw CommunicationError("this MPI library has no MPI_THREAD_MULTIPLE; use one that was built with it");
  }
}

MpiEnvironment::~MpiEnvironment() {
  MPI_Finalize();
}

int MpiEnvironment::world_rank() const {
  int rank = 0;
  LONGNET_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  return rank;
}

void MpiEnvironment::abort(int exit_code) const {
  int size = 0;
  if (MPI_Comm_size(MPI_COMM_WORLD, &size) == MPI_SUCCESS && size == 1) std::_Exit(exit_code);  // nobody else to end
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();
}

}  // namespace longnet
