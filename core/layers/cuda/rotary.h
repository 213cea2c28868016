#pragma once

#include <ATen/core/Tensor.h>

namespace longnet::cuda {

/// x (B, n, H, D) with neighbouring channels turned by `rotations` (n, 1, D / 2), or turned back; a new tensor. Both
/// are contiguous. Reads and writes x once, where conversions to complex numbers and back would move five times as
/// much.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations, bool back);

}  // namespace longnet::cuda
