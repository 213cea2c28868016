#pragma once

#include <memory>

#include "distributed/communicator.h"

namespace longnet {

/// The ranks of this MPI job, as a communicator of its own (a duplicate of MPI_COMM_WORLD). Needs a living
/// MpiEnvironment. Sums of reduce_scatter, and only those, are made here and not by MPI: in rank order.
///
/// Tensors in a GPU's memory travel through pinned host memory, and starting an operation waits for the GPU: slow, but
/// several ranks can share one GPU.
std::unique_ptr<Communicator> make_mpi_world();

}  // namespace longnet
