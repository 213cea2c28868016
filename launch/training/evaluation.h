#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "launch/job/job.h"
#include "launch/training/stop_wish.h"

namespace longnet {

struct EvaluationResult {
  std::int64_t labels;
  double loss;                  ///< mean over labels
  std::vector<double> metrics;  ///< of the specification, means over labels
};

/// Throws unless something is held out, and enough for a sequence of `length`, which the user gave as `key`: ConfigError, DataError.
void require_held_out(const Job& job, std::int64_t length, const std::string& key = "data.sequence_length");

/// The loss on the first `sequences` validation sequences, of `length` positions. Throws what require_held_out
/// throws. Collective; the result is the same on all ranks.
EvaluationResult evaluate(Job& job, std::int64_t length, std::int64_t sequences);

/// The same; none when the ranks have given it up.
std::optional<EvaluationResult> evaluate(Job& job, std::int64_t length, std::int64_t sequences, const StopWish& stop);

/// Calls `work` with each of the first `sequences` validation sequences that this rank works on; false when the ranks have given it up.
/// Collective.
bool for_each_sequence(
    Job& job, std::int64_t length, std::int64_t sequences,
    const std::function<void(const SequencePlace& place, const Batch& batch, const Pass& pass)>& work,
    const StopWish& stop = {});

}  // namespace longnet
