#pragma once

#include <cstdint>
#include <memory>

#include "distributed/communicator.h"

namespace longnet {

/// The ranks of a job as a grid, data x sequence. Ranks of a row share a sequence; the rows hold different sequences.
struct ProcessMesh {
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> sequence;  ///< the row of this rank
  int data_index;                          ///< which row
  int data_size;                           ///< how many rows

  /// Rank 0 of the world, which writes what is written once.
  bool is_first() const { return world->rank() == 0; }
};

/// Throws ConfigError when `ranks` is no multiple of `sequence`.
void require_mesh(int ranks, std::int64_t sequence);

/// Lays the world out with `sequence` ranks in a row. Throws what require_mesh throws.
ProcessMesh make_process_mesh(std::unique_ptr<Communicator> world, std::int64_t sequence);

}  // namespace longnet
