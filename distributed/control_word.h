#pragma once

#include <cstdint>

#include "distributed/communicator.h"

namespace longnet {

/// What steers a training loop. Ranks never decide apart: a wish of one is the decision of all. (Whether a step's
/// update is skipped is decided where its numbers are: see training_step.)
struct ControlWord {
  bool save = false;                   ///< write a checkpoint after the step
  bool evaluate = false;               ///< evaluate after the step
  bool stop = false;                   ///< the step is the last
  bool signal = false;                 ///< somebody asked the job to stop
  std::int64_t peak_memory_bytes = 0;  ///< the largest of all ranks
};

/// The union of all ranks' wishes: what one wants, all do. Collective, once a step.
ControlWord agree_on(Communicator& world, const ControlWord& wishes);

}  // namespace longnet
