#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/configuration/configuration.h"
#include "core/layers/parameters.h"

namespace longnet {

/// What changes a model's parameters by their gradients. A new one is a class and a line in make_optimizer.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// One update with the gradients as they are in the ParameterSet. Nothing changes where `skip`, one float32 number on
  /// the parameters' device, is 1. The host does not wait.
  virtual void update(double learning_rate, const at::Tensor& skip) = 0;

  /// Updates that were made, skipped ones not counted. Waits for the device.
  virtual std::int64_t updates() const = 0;
  virtual void set_updates(std::int64_t updates) = 0;

  /// What it remembers from update to update, by name; each flat like ParameterSet::values().
  virtual std::vector<std::pair<std::string, at::Tensor>> states() const = 0;
};

/// The optimizer that the configuration names. It keeps a reference to the parameters' memory.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, ParameterSet& parameters);

}  // namespace longnet
