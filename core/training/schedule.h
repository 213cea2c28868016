#pragma once

#include <cstdint>

#include "core/configuration/configuration.h"

namespace longnet {

/// The learning rate of step `step` (from 1) of `steps`: rises linearly over the warm-up steps, reaches its peak with
/// the last of them, then stays, or falls to the final rate with the last step.
double learning_rate(const OptimizerConfig& optimizer, std::int64_t step, std::int64_t steps);

}  // namespace longnet
