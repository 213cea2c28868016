#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "launch/job/job.h"

namespace longnet {

struct EvaluationResult {
  std::int64_t labels;
  double loss;                  ///< mean over labels
  std::vector<double> metrics;  ///< of the specification, means over labels
};

/// The loss on the first `sequences` validation sequences, of `length` positions. Throws DataError when the data hold
/// no such sequence. Collective; the result is the same on all ranks.
EvaluationResult evaluate(Job& job, std::int64_t length, std::int64_t sequences);

/// Calls `work` with each of the first `sequences` validation sequences that this rank works on. Collective.
void for_each_sequence(
    Job& job, std::int64_t length, std::int64_t sequences,
    const std::function<void(const SequencePlace& place, const Batch& batch, const Pass& pass)>& work);

}  // namespace longnet
