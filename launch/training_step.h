#pragma once

#include <cstdint>

#include "core/training/adamw.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/job.h"

namespace longnet {

/// A training run between two steps.
struct Training {
  Job& job;
  AdamW optimizer;
  TrainingProgress progress;
};

struct StepResult {
  double loss;           ///< the mean over all labels of the step
  double gradient_norm;  ///< before clipping
  double learning_rate;
  std::int64_t exchange_bytes;  ///< received by all ranks together
  bool skipped;                 ///< loss or gradient was not finite: nothing was changed
};

/// One step: forward and backward over this rank's part of the batch, sum over ranks, update. Collective; the result is
/// the same on all ranks.
StepResult training_step(Training& training);

/// The exchange_bytes of a step, from the plan alone. Collective.
std::int64_t planned_exchange_bytes(Job& job);

}  // namespace longnet
