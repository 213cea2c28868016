#pragma once

#include <ATen/core/Tensor.h>

namespace longnet {

/// Layer normalization of x (..., C) over its last dimension (arXiv 1607.06450), in x's dtype: (x - mean) / sqrt(variance + epsilon)
/// * weight + bias, with weight and bias (C) of a dtype that is at least as wide. Differentiable. On a GPU two kernels of the
/// project's own serve widths that are multiples of 16 bytes, up to 16 KiB; LibTorch's serve all else.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon);

}  // namespace longnet
