#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace longnet {

/// layer(x) without keeping what happens inside: the backward pass runs the layer a second time. Saves the memory of
/// the layer's activations for the time of one more forward pass. `layer` must give the same result both times.
at::Tensor recompute(const std::function<at::Tensor(const at::Tensor&)>& layer, const at::Tensor& x);

}  // namespace longnet
