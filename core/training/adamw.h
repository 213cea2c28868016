#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "core/training/optimizer.h"

namespace longnet {

struct AdamWSettings {
  std::array<double, 2> betas{0.9, 0.98};
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

/// AdamW (arXiv 1711.05101) over parts of a ParameterSet (see make_optimizer). Parameters decay as Parameter::decays says.
/// The bias correction counts the updates that were made.
class AdamW : public Optimizer {
 public:
  AdamW(ParameterSet& parameters, const std::vector<Range>& parts, const AdamWSettings& settings);

  void update(double learning_rate, const at::Tensor& skip) override;
  std::int64_t updates() const override;
  void set_updates(std::int64_t updates) override;
  /// `exp_avg` and `exp_avg_sq`, the running averages of gradients and of their squares.
  std::vector<std::pair<std::string, at::Tensor>> states() const override;

 private:
  /// Parameters that share a weight decay.
  struct Group {
    double weight_decay = 0;
    std::vector<at::Tensor> values, gradients, averages, square_averages;
  };

  AdamWSettings settings_;
  at::Tensor average_, square_average_;
  at::Tensor updates_;  ///< on the device: float32, as the kernel wants it; exact to 16 million
  std::array<Group, 2> groups_;
};

}  // namespace longnet
