#pragma once

#include <memory>

#include "distributed/communicator.h"

namespace longnet {

/// The ranks of a job as a grid, data x sequence. Ranks of a row share a sequence; the rows hold different sequences.
struct ProcessMesh {
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> sequence;  ///< the row of this rank
  int data_index;                          ///< which row
  int data_size;                           ///< how many rows
  int ranks_on_host;                       ///< how many ranks share this host

  /// Rank 0 of the world, which writes what is written once.
  bool is_first() const { return world->rank() == 0; }
};

/// Lays the world out with `sequence` ranks in a row. Throws ConfigError when the world is no multiple of that.
ProcessMesh make_process_mesh(std::unique_ptr<Communicator> world, std::int64_t sequence);

}  // namespace longnet
