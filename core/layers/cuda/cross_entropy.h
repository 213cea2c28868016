#pragma once

#include <ATen/core/Tensor.h>

namespace longnet::cuda {

/// The cross-entropy of each row of `logits` (rows, V) against its target, (rows) in float32 or, for float64 logits,
/// float64; 0 where the target is ignored_target. With `with_gradient` the logits are replaced by the gradient of the
/// sum. Reads the logits twice, the second time mostly from the cache, and writes them once.
at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, bool with_gradient);

}  // namespace longnet::cuda
