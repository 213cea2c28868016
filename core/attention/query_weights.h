#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/attention/plan.h"

/// What queries see, counted position by position.
namespace longnet {

/// In how many branches the query at `position` reaches each position of `plan.own`: (n, H) float64. Causality counts.
at::Tensor key_counts(const AttentionPlan& plan, std::int64_t position);

/// How many zero keys (see Mixture) each of `queries` has: (queries, H) float64.
at::Tensor zero_key_counts(const AttentionPlan& plan, Range queries);

}  // namespace longnet
