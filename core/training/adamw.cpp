#include "core/training/adamw.h"

#include <ATen/ATen.h>

namespace longnet {

AdamW::AdamW(ParameterSet& parameters, const std::vector<Range>& parts, const AdamWSettings& settings)
    : settings_(settings),
      average_(at::zeros({parts.back().end - parts.front().begin}, parameters.options())),
      square_average_(at::zeros({parts.back().end - parts.front().begin}, parameters.options())),
      updates_(at::zeros({}, parameters.options().dtype(at::kFloat))) {
  groups_[0].weight_decay = settings.weight_decay;
  const std::int64_t first = parts.front().begin;
  for (const Range& part : parts) {
    std::int64_t begin = 0;
    for (const Parameter& parameter : parameters.list()) {
      const std::int64_t end = begin + parameter.value.numel();
      const Range own = overlap({begin, end}, part);
      begin = end;
      if (own.size() == 0) continue;
      Group& group = groups_[parameter.decays ? 0 : 1];
      group.values.push_back(parameters.values().slice(0, own.begin, own.end));
      group.gradients.push_back(parameters.gradients().slice(0, own.begin, own.end));
      group.averages.push_back(average_.slice(0, own.begin - first, own.end - first));
      group.square_averages.push_back(square_average_.slice(0, own.begin - first, own.end - first));
    }
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
