#include "core/training/adamw.h"

#include <ATen/ATen.h>

namespace longnet {

AdamW::AdamW(ParameterSet& parameters, const AdamWSettings& settings)
    : settings_(settings),
      average_(at::zeros_like(parameters.values())),
      square_average_(at::zeros_like(parameters.values())) {
  groups_[0].weight_decay = settings.weight_decay;
  std::int64_t begin = 0;
  for (const Parameter& parameter : parameters.list()) {
    Group& group = groups_[parameter.value.dim() >= 2 ? 0 : 1];
    const std::int64_t end = begin + parameter.value.numel();
    const auto part = [&](const at::Tensor& flat) { return flat.slice(0, begin, end); };
    group.values.push_back(part(parameters.values()));
    group.gradients.push_back(part(parameters.gradients()));
    group.averages.push_back(part(average_));
    group.square_averages.push_back(part(square_average_));
    begin = end;
  }
}

void AdamW::update(std::int64_t step, double learning_rate, const at::Tensor& skip) {
  const auto number = at::full({}, static_cast<double>(step), average_.options().dtype(at::kFloat));
  for (Group& group : groups_) {
    if (group.values.empty()) continue;
    const std::vector<at::Tensor> steps(group.values.size(), number);
    at::_fused_adamw_(group.values, group.gradients, group.averages, group.square_averages, /*max_exp_avg_sqs=*/{},
                      steps, learning_rate, settings_.betas[0], settings_.betas[1], group.weight_decay,
                      settings_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, skip);
  }
}

}  // namespace longnet
