#pragma once

#include <ATen/core/Tensor.h>

#include "core/range.h"

namespace longnet {

/// The rotations of rotary position embeddings (arXiv 2104.09864) for the given positions: e^(i p 10000^(-2j / D)) for
/// the pair j of neighbouring channels, (n, 1, D / 2), complex128 for float64 and complex64 for all other dtypes
/// of `options`, on its device.
/// Angles are float64, so that they are exact to 1e-7 even at a billion positions. D must be even.
at::Tensor rotary_rotations(Range positions, std::int64_t head_width, const at::TensorOptions& options);

/// What q and k are multiplied with.
struct Rotations {
  at::Tensor q, k;
};

/// The same with xPos (arXiv 2212.10554) as torchscale has it: at position p of a sequence of N tokens, q is also
/// multiplied by S = z_j^(m / 512) and k divided by it, z_j = (2j + 0.4 D) / (1.4 D), m = p + floor(-N / 2).
Rotations xpos_rotations(Range positions, std::int64_t length, std::int64_t head_width,
                         const at::TensorOptions& options);

/// The longest sequence whose xPos scales stay a factor of 1000 within the range of float32, or of float64.
std::int64_t longest_xpos_sequence(at::ScalarType dtype);

/// Multiplies neighbouring channels (2j, 2j + 1) of x (B, n, H, D). Differentiable; computes in float32 or wider.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations);

}  // namespace longnet
