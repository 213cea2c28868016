#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/attention/part.h"

/// One kernel that reads the results of all calls once and writes each row once. All tensors are on one GPU; nothing
/// waits for it.
namespace longnet::cuda {

/// out (B, n, H, D), lse (B, n, H): the softmax attention over the keys of all parts; 0 and -inf for a row that no part
/// holds. Contiguous; out is of the parts' dtype, lse of their lse's. Accumulates in float32, or float64 for float64.
void merge_parts(const std::vector<Part>& parts, at::Tensor& out, at::Tensor& lse);

/// sum (B, places, H, D): the sum of all parts that hold a row. Contiguous; accumulated as above, in any dtype of at
/// least the parts' width.
void sum_parts(const std::vector<Part>& parts, at::Tensor& sum);

}  // namespace longnet::cuda
