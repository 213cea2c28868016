#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/output/log.h"
#include "launch/training/training_step.h"

namespace longnet {

/// Saves a training when it is due, beside its next step: weights and optimizer change only in the update, which waits. What
/// a disk refuses ends nothing by itself: the checkpoints before are still there, and the next save may succeed
/// (checkpoint.on_failure).
class Saver {
 public:
  /// `saved` is called with the step of each checkpoint, once that has its name; collective.
  Saver(const Training& training, const Log& log, std::function<void(std::int64_t step)> saved)
      : training_(training), log_(log), saved_(std::move(saved)) {}

  /// Whether the clock wants a save: checkpoint.every_minutes after the last, or a minute after one that failed.
  bool due() const;

  /// The training is now as a checkpoint has it, or where it began.
  void note_saved() { saved_step_ = training_.progress.step; }
  /// Whether there is any checkpoint.
  bool has_saved() const { return saved_step_ > 0; }
  bool is_saved() const { return training_.progress.step == saved_step_; }

  /// Begins to save between two steps, unless that is done. `last`: the program ends after it, so that it is finished, and a
  /// failure is one of the training. Collective; throws AgreedError.
  void save(bool last);

  /// Waits for a save that is under way. Before anything of the training changes, and at the end. Collective; throws
  /// AgreedError.
  void finish(bool last = false);

  /// Since the program started.
  struct Totals {
    std::int64_t saves = 0;
    std::int64_t failures = 0;
    std::uint64_t bytes = 0;     ///< of all ranks
    double seconds_written = 0;  ///< while this rank's shards were written
    double seconds_waited = 0;   ///< while the training stood still for it
  };
  const Totals& totals() const { return totals_; }

 private:
  using Clock = std::chrono::steady_clock;

  /// A save that is under way.
  struct UnderWay {
    std::int64_t step;
    CheckpointSave save;
  };

  void begin_now(bool last);
  CheckpointSave begin_with_room();
  void end_removal();
  void tell_not_removed(const std::vector<std::string>& reasons);
  void finish_now(bool last);
  void publish(UnderWay& ending, bool last);
  void fail(std::int64_t step, const Error& error, bool last);

  const Training& training_;
  const Log& log_;
  std::function<void(std::int64_t)> saved_;
  std::optional<UnderWay> under_way_;
  std::future<std::vector<std::string>> not_removed_;  ///< of older checkpoints that are on their way out; on rank 0
  std::set<std::string> told_;                         ///< of those that stay
  Clock::time_point last_ = Clock::now();
  std::int64_t saved_step_ = -1;
  bool failed_ = false;  ///< the last one
  Totals totals_;
};

}  // namespace longnet
