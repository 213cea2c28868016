#pragma once

#include <ATen/core/Tensor.h>

namespace longnet {

/// The 2-norm of a flat tensor, summed in float64: a float64 number on its device, which nothing waits for. Not finite
/// when an element is not.
at::Tensor global_norm(const at::Tensor& flat);

/// What gradients of norm `norm`, a float64 number, are multiplied with so that their norm is at most `limit`; 1 when
/// limit is 0.
at::Tensor clip_factor(const at::Tensor& norm, double limit);

}  // namespace longnet
