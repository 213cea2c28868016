#pragma once

#include <memory>

#include "distributed/communicator.h"

namespace longnet {

/// The ranks of this MPI job, as a communicator of its own (a duplicate of MPI_COMM_WORLD) for tensors in host memory.
/// Needs a living MpiEnvironment. Sums of reduce_scatter, and only those, are made here and not by MPI: in rank order.
std::unique_ptr<Communicator> make_mpi_world();

}  // namespace longnet
