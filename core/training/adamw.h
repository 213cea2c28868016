#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "core/layers/parameters.h"

namespace longnet {

struct AdamWSettings {
  std::array<double, 2> betas{0.9, 0.98};
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

/// AdamW (arXiv 1711.05101) over a ParameterSet. Matrices decay; biases and normalization weights do not.
class AdamW {
 public:
  AdamW(ParameterSet& parameters, const AdamWSettings& settings);

  /// One update, number `step` (from 1), with the gradients as they are in the ParameterSet. Nothing changes where
  /// `skip`, one float32 number on the parameters' device, is 1.
  void update(std::int64_t step, double learning_rate, const at::Tensor& skip);

  /// The running averages of gradients and of their squares, flat like ParameterSet::values().
  const at::Tensor& average() const { return average_; }
  const at::Tensor& square_average() const { return square_average_; }

 private:
  /// Parameters that share a weight decay.
  struct Group {
    double weight_decay = 0;
    std::vector<at::Tensor> values, gradients, averages, square_averages;
  };

  AdamWSettings settings_;
  at::Tensor average_, square_average_;
  std::array<Group, 2> groups_;
};

}  // namespace longnet
