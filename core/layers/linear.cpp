#include "core/layers/linear.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/layers/layer_norm.h"

namespace longnet {

Linear::Linear(ParameterSet& parameters, const std::string& name, std::int64_t inputs, std::int64_t outputs,
               double gain) {
  const auto initialize = uniform(gain / std::sqrt(static_cast<double>(inputs)));
  weight_ = parameters.add(name + ".weight", {outputs, inputs}, initialize);
  bias_ = parameters.add(name + ".bias", {outputs}, initialize);
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return at::linear(x, weight_.to(x.scalar_type()), bias_.to(x.scalar_type()));
}

LayerNorm::LayerNorm(ParameterSet& parameters, const std::string& name, std::int64_t width, double epsilon)
    : epsilon_(epsilon),
      weight_(parameters.add(name + ".weight", {width}, constant(1))),
      bias_(parameters.add(name + ".bias", {width}, constant(0))) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return layer_norm(x, weight_, bias_, epsilon_);
}

}  // namespace longnet
