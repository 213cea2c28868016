#pragma once

#include <cstdint>

#include "launch/job.h"

namespace longnet {

struct EvaluationResult {
  std::int64_t tokens;
  double loss;  ///< mean, in nats a token
};

/// The loss on the first `tokens` validation tokens, at least, cut into sequences of `length`. Throws DataError when
/// they hold no such sequence. Collective; the result is the same on all ranks.
EvaluationResult evaluate(Job& job, std::int64_t length, std::int64_t tokens);

}  // namespace longnet
