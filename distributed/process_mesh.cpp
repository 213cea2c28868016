#include "distributed/process_mesh.h"

#include <string>

#include "core/error.h"

namespace longnet {

void require_mesh(int ranks, std::int64_t sequence) {
  if (sequence < 1 || ranks % sequence != 0) {
    throw ConfigError("parallel.sequence is " + std::to_string(sequence) + ", but the job has " +
                      std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks") +
                      ": start a multiple of parallel.sequence ranks (mpirun -np), or " +
                      "set parallel.sequence to a divisor of the rank count");
  }
}

ProcessMesh make_process_mesh(std::unique_ptr<Communicator> world, std::int64_t sequence) {
  require_mesh(world->size(), sequence);
  const int ranks = world->size(), rank = world->rank();
  const int row_size = static_cast<int>(sequence);
  auto row = world->split(rank / row_size);
  return {std::move(world), std::move(row), rank / row_size, ranks / row_size};
}

}  // namespace longnet
