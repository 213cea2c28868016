#include "core/layers/parameters.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

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
  list_.push_back({name, at::empty(shape, options_).requires_grad_(), shape.size() == 2});
  initializers_.push_back(initialize);
  return list_.back().value;
}

void ParameterSet::initialize(std::size_t number) const {
  const auto value = list_[number].value.detach();
  auto wide = at::empty(value.sizes(), at::kDouble);
  initializers_[number](wide, at::detail::createCPUGenerator(hash({seed_, number})));
  value.copy_(wide);
}

void ParameterSet::flatten() {
  if (values_.defined()) throw Error("flatten() is called twice");
  std::int64_t count = 0;
  for (const Parameter& parameter : list_) count += parameter.value.numel();
  values_ = at::empty({count}, options_);
  gradients_ = at::zeros_like(values_);
  std::int64_t begin = 0;
  for (Parameter& parameter : list_) {
    const std::int64_t end = begin + parameter.value.numel();
    const auto shape = parameter.value.sizes().vec();
    parameter.value.set_data(values_.slice(0, begin, end).view(shape));
    parameter.value.mutable_grad() = gradients_.slice(0, begin, end).view(shape);
    begin = end;
  }
  const auto parameters = std::ssize(list_);
  // Another thread's copies to a GPU would go to the device that is current there.
  const std::int64_t grain = values_.is_cpu() ? 1 : parameters;
  at::parallel_for(0, parameters, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number < last; ++number) initialize(static_cast<std::size_t>(number));
  });
  initializers_.clear();
}

}  // namespace longnet
