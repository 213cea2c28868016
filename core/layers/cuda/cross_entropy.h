#pragma once

#include <ATen/core/Tensor.h>

namespace longnet::cuda {

/// The cross-entropy of each row of `logits` (rows, columns), of which the first `vocabulary` columns count, against its
/// target, (rows) in float32 or, for float64 logits, float64; 0 where the target is ignored_target. With `with_gradient` the
/// logits are replaced by the gradient of the sum, which is 0 in the columns that do not count. Rows must be contiguous and
/// begin at multiples of 16 bytes. Reads the logits twice, the second time mostly from the cache, and writes them once.
at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, std::int64_t vocabulary, bool with_gradient);

}  // namespace longnet::cuda
