#include "core/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace longnet {

double learning_rate(const OptimizerConfig& optimizer, std::int64_t step, std::int64_t steps) {
  const double peak = optimizer.learning_rate, end = optimizer.final_learning_rate;
  if (step <= optimizer.warmup_steps)
    return peak * static_cast<double>(step) / static_cast<double>(optimizer.warmup_steps);
  const auto decay_steps = static_cast<double>(std::max<std::int64_t>(1, steps - optimizer.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - optimizer.warmup_steps) / decay_steps);
  switch (optimizer.schedule) {
    case OptimizerConfig::Schedule::Cosine:
      return end + (peak - end) * (1 + std::cos(std::numbers::pi * progress)) / 2;
    case OptimizerConfig::Schedule::Polynomial:
      return end + (peak - end) * std::pow(1 - progress, optimizer.power);
    case OptimizerConfig::Schedule::Constant:
      return peak;
  }
  throw Error("a schedule of no known type");
}

}  // namespace longnet
