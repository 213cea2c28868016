#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "core/layers/parameters.h"

/// Layers whose parameters may be wider than what they compute in: they compute in the dtype of their input.
namespace longnet {

/// y = x W^T + b. Weight and bias begin uniform in +-1/sqrt(inputs), times `gain`.
class Linear {
 public:
  Linear(ParameterSet& parameters, const std::string& name, std::int64_t inputs, std::int64_t outputs, double gain = 1);

  at::Tensor operator()(const at::Tensor& x) const;  ///< (..., inputs) -> (..., outputs)

 private:
  at::Tensor weight_;  // (outputs, inputs)
  at::Tensor bias_;    // (outputs)
};

/// Layer normalization over the last dimension.
class LayerNorm {
 public:
  LayerNorm(ParameterSet& parameters, const std::string& name, std::int64_t width, double epsilon = 1e-5);

  at::Tensor operator()(const at::Tensor& x) const;

 private:
  double epsilon_;
  at::Tensor weight_;  // (width)
  at::Tensor bias_;    // (width)
};

}  // namespace longnet
