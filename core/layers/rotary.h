#pragma once

#include <ATen/core/Tensor.h>

#include "core/attention/rows.h"

namespace longnet {

/// The rotations of rotary position embeddings (arXiv 2104.09864) for the given positions: e^(i p 10000^(-2j / D)) for
/// the pair j of neighbouring channels, (n, 1, D / 2), complex128 for float64 and complex64 for all other dtypes
/// of `options`, on its device.
/// Angles are float64, so that they are exact to 1e-7 even at a billion positions. D must be even.
at::Tensor rotary_rotations(Range positions, std::int64_t head_width, const at::TensorOptions& options);

/// Rotates neighbouring channels (2j, 2j + 1) of x (B, n, H, D). Differentiable; computes in float32 or wider.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations);

}  // namespace longnet
