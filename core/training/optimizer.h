#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/configuration/configuration.h"
#include "core/layers/parameters.h"
#include "core/range.h"

namespace longnet {

/// What changes a model's parameters, or a part of them, by their gradients. A new one is a class and a line in make_optimizer.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// One update with the gradients as they are in the ParameterSet. Nothing changes where `skip`, one float32 number on
  /// the parameters' device, is 1. The host does not wait.
  virtual void update(double learning_rate, const at::Tensor& skip) = 0;

  /// Updates that were made, skipped ones not counted. Waits for the device.
  virtual std::int64_t updates() const = 0;
  virtual void set_updates(std::int64_t updates) = 0;

  /// What it remembers from update to update, by name; each flat like its parts of ParameterSet::values().
  virtual std::vector<std::pair<std::string, at::Tensor>> states() const = 0;
};

/// The optimizer that the configuration names, for those elements of ParameterSet::values() that lie in `parts`, which follow one
/// another. A kernel may round the last elements of what it is given otherwise than those before: results are the same to the last
/// bit where the parts are, whoever updates them. It keeps a reference to the parameters' memory.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, ParameterSet& parameters,
                                          const std::vector<Range>& parts);

}  // namespace longnet
