#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

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

/// Ranks that are agreeing on a control word while they work on.
class Agreement {
 public:
  /// Starts to unite all ranks' wishes. Collective, once a step.
  Agreement(Communicator& world, const ControlWord& wishes);

  /// The union. Waits for the ranks that have not given their wishes yet.
  ControlWord decision();

 private:
  at::Tensor word_;
  std::unique_ptr<Work> work_;
};

}  // namespace longnet
