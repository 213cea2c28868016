#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/layers/dropout_mask.h"

namespace longnet::cuda {

/// output = input with the mask applied; both (B, n, C), contiguous, of one dtype. `samples`: one for each sequence.
void dropout(const at::Tensor& input, at::Tensor& output, const DropoutMask& mask,
             const std::vector<std::int64_t>& samples);

}  // namespace longnet::cuda
