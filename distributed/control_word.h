#pragma once

#include "distributed/communicator.h"

namespace longnet {

/// What steers a training loop. Ranks never decide apart: a wish of one is the decision of all.
struct ControlWord {
  bool skip = false;      ///< this step's gradients are not finite somewhere: no update
  bool save = false;      ///< write a checkpoint after this step
  bool evaluate = false;  ///< evaluate after this step
  bool stop = false;      ///< this was the last step
  bool signal = false;    ///< somebody asked the job to stop
};

/// The union of all ranks' wishes. Collective, once a step.
ControlWord agree_on(Communicator& world, const ControlWord& wishes);

}  // namespace longnet
