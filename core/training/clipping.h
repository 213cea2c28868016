#pragma once

#include <ATen/core/Tensor.h>

namespace longnet {

/// The 2-norm of a flat tensor, summed in float64. Not finite when an element is not.
double global_norm(const at::Tensor& flat);

/// What gradients of norm `norm` are multiplied with so that their norm is at most `limit`; 1 when limit is 0.
double clip_factor(double norm, double limit);

}  // namespace longnet
