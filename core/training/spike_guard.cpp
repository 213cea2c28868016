#include "core/training/spike_guard.h"

#include <ATen/ATen.h>

namespace longnet {
namespace {

constexpr double window = 100;            // losses
constexpr double judged_from = 20;        // losses before
constexpr double least_deviation = 1e-3;  // of the mean

}  // namespace

SpikeGuard::SpikeGuard(double threshold, c10::Device device)
    : threshold_(threshold), level_(at::zeros({3}, at::TensorOptions(device).dtype(at::kDouble))) {}

at::Tensor SpikeGuard::operator()(const at::Tensor& loss) {
  const auto mean = level_[0], variance = level_[1], steps = level_[2];
  const auto limit = mean + threshold_ * at::maximum(variance.sqrt(), least_deviation * mean.abs());
  const auto finite = loss.isfinite();
  const auto spike = finite.logical_and(steps >= judged_from).logical_and(loss > limit);

  const auto difference = at::where(spike, limit, loss) - mean;
  const auto weight = (1 / (steps + 1)).clamp_min(1 / window);
  const auto next =
      at::stack({mean + weight * difference, (1 - weight) * (variance + weight * difference.square()), steps + 1});
  level_ = at::where(finite, next, level_);
  return spike.to(at::kDouble);
}

LossLevel SpikeGuard::level() const {
  const auto host = level_.to(at::kCPU);
  const auto* values = host.const_data_ptr<double>();
  return {values[0], values[1], static_cast<std::int64_t>(values[2])};
}

void SpikeGuard::set_level(const LossLevel& level) {
  level_.copy_(at::tensor({level.mean, level.variance, static_cast<double>(level.steps)}, at::kDouble));
}

}  // namespace longnet
