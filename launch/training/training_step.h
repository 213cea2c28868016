#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "core/training/optimizer.h"
#include "core/training/spike_guard.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/job/job.h"
#include "launch/training/stop_wish.h"

namespace longnet {

/// A training run between two steps.
struct Training {
  Job& job;
  std::unique_ptr<Optimizer> optimizer;
  TrainingProgress progress;
  std::optional<SpikeGuard> spikes = {};       ///< with training.skip_spikes
  std::optional<double> validation_loss = {};  ///< of the weights as they are now, where they were evaluated
  std::function<void()> before_update = {};    ///< called in each step before weights and optimizer change; collective
};

class StepClock;

struct StepResult {
  double loss;           ///< the mean over all labels of the step
  double gradient_norm;  ///< before clipping
  double learning_rate;
  std::int64_t tokens;          ///< positions of all its sequences
  std::int64_t exchange_bytes;  ///< received by all ranks together
  double seconds;               ///< from the step's begin to its end, on this rank
  bool skipped;                 ///< nothing was changed, because loss or gradient was not finite, or the loss a spike
  bool spike;                   ///< the latter
};

/// A step that was started. On a GPU it may still be under way.
class StartedStep {
 public:
  /// Waits for the step's end. The same on all ranks.
  StepResult result() const;

 private:
  friend class StepClock;
  friend std::optional<StartedStep> training_step(Training& training, const StopWish& stop);

  double learning_rate_ = 0;
  std::int64_t tokens_ = 0;
  at::Tensor numbers_;  ///< on the host, once the step has ended: loss, norm, bytes, why it was skipped
  std::shared_ptr<StepClock> clock_;
};

/// One step: forward and backward over this rank's part of the batch, sum over ranks, update. Collective. On a GPU the
/// host only gives the orders: whether to skip the update and how much to clip is decided where the numbers are.
StartedStep training_step(Training& training);

/// The same; but where a rank wishes to stop between two micro-batches, all give the step up: there is none, and nothing has changed.
std::optional<StartedStep> training_step(Training& training, const StopWish& stop);

}  // namespace longnet
