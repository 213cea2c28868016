#include "core/training/adamw.h"

#include <ATen/ATen.h>

namespace longnet {

AdamW::AdamW(ParameterSet& parameters, const AdamWSettings& settings)
    : settings_(settings),
      average_(at::zeros_like(parameters.values())),
      square_average_(at::zeros_like(parameters.values())),
      updates_(at::zeros({}, parameters.options().dtype(at::kFloat))) {
  groups_[0].weight_decay = settings.weight_decay;
  std::int64_t begin = 0;
  for (const Parameter& parameter : parameters.list()) {
    Group& group = groups_[parameter.decays ? 0 : 1];
    const std::int64_t end = begin + parameter.value.numel();
    const auto part = [&](const at::Tensor& flat) { return flat.slice(0, begin, end); };
    group.values.push_back(part(parameters.values()));
    group.gradients.push_back(part(parameters.gradients()));
    group.averages.push_back(part(average_));
    group.square_averages.push_back(part(square_average_));
    begin = end;
  }
}

void AdamW::update(double learning_rate, const at::Tensor& skip) {
  updates_ = updates_ + (1 - skip).reshape({});
  for (Group& group : groups_) {
    if (group.values.empty()) continue;
    const std::vector<at::Tensor> steps(group.values.size(), updates_);
    at::_fused_adamw_(group.values, group.gradients, group.averages, group.square_averages, /*max_exp_avg_sqs=*/{},
                      steps, learning_rate, settings_.betas[0], settings_.betas[1], group.weight_decay,
                      settings_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, skip);
  }
}

std::int64_t AdamW::updates() const {
  return static_cast<std::int64_t>(updates_.item<float>());
}

void AdamW::set_updates(std::int64_t updates) {
  updates_ = at::full_like(updates_, static_cast<double>(updates));
}

std::vector<std::pair<std::string, at::Tensor>> AdamW::states() const {
  return {{"exp_avg", average_}, {"exp_avg_sq", square_average_}};
}

}  // namespace longnet
