#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longnet {

/// Mean and variance of a training's losses: of all, up to a hundred, and then exponentially weighted with 1/100.
struct LossLevel {
  double mean = 0;
  double variance = 0;
  std::int64_t steps = 0;  ///< that are in it
};

/// Tells losses that jump far above those before. A level that stays is learnt: of a spike no more enters than just were no spike.
class SpikeGuard {
 public:
  /// A loss is a spike when it is more than `threshold` standard deviations above the mean. A deviation is at least a
  /// thousandth of the mean; of the first 20 losses none is a spike.
  SpikeGuard(double threshold, c10::Device device);

  /// Whether `loss`, one float64 number on the device, is a spike: 1 or 0, of the same kind. Then takes it in, if it is finite. The host
  /// does not wait.
  at::Tensor operator()(const at::Tensor& loss);

  /// What the losses so far were. Waits for the device.
  LossLevel level() const;
  void set_level(const LossLevel& level);

 private:
  double threshold_;
  at::Tensor level_;  ///< mean, variance, steps
};

}  // namespace longnet
