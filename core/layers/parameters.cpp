#include "core/layers/parameters.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "core/error.h"
#include "core/random.h"

namespace longnet {

Initializer constant(double value) {
  return [=](at::Tensor& tensor, const at::Generator&) { tensor.fill_(value); };
}

Initializer uniform(double bound) {
  return [=](at::Tensor& tensor, const at::Generator& generator) { tensor.uniform_(-bound, bound, generator); };
}

Initializer normal(double standard_deviation) {
  return [=](at::Tensor& tensor, const at::Generator& generator) { tensor.normal_(0, standard_deviation, generator); };
}

at::Tensor ParameterSet::add(const std::string& name, const std::vector<std::int64_t>& shape,
                             const Initializer& initialize) {
  if (values_.defined()) throw Error("the parameter " + name + " comes after flatten()");
  auto value = at::empty(shape, at::kDouble);
  initialize(value, at::detail::createCPUGenerator(hash({seed_, list_.size()})));
  list_.push_back({name, value.to(options_).requires_grad_(), shape.size() == 2});
  return list_.back().value;
}

void ParameterSet::flatten() {
  if (values_.defined()) throw Error("flatten() is called twice");
  std::vector<at::Tensor> flat;
  flat.reserve(list_.size());
  for (const Parameter& parameter : list_) flat.push_back(parameter.value.detach().flatten());
  values_ = at::cat(flat);
  gradients_ = at::zeros_like(values_);
  std::int64_t begin = 0;
  for (Parameter& parameter : list_) {
    const std::int64_t end = begin + parameter.value.numel();
    const auto shape = parameter.value.sizes().vec();
    parameter.value.set_data(values_.slice(0, begin, end).view(shape));
    parameter.value.mutable_grad() = gradients_.slice(0, begin, end).view(shape);
    begin = end;
  }
}

}  // namespace longnet
