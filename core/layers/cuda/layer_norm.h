#pragma once

#include <ATen/core/Tensor.h>

namespace longnet::cuda {

/// Whether the kernels below take rows of this width and dtype: a thread an access of 16 bytes, a block a row.
bool takes_layer_norm(std::int64_t width, at::ScalarType dtype);

struct LayerNormOutput {
  at::Tensor y;                        ///< as x
  at::Tensor mean, inverse_deviation;  ///< (rows) in float32 or, for float64, float64
};

/// Layer normalization of x (rows, C), contiguous, with weight and bias (C) in float32 or, for float64, float64. Reads x once.
LayerNormOutput layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon);

struct LayerNormGradients {
  at::Tensor x, weight, bias;  ///< as the inputs
};

/// Its gradients. Reads x and the gradient once, for all three. Sums over rows in an order that the card alone determines.
LayerNormGradients layer_norm_backward(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& weight,
                                       const at::Tensor& mean, const at::Tensor& inverse_deviation);

}  // namespace longnet::cuda
