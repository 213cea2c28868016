#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/layers/linear_cross_entropy.h"
#include "core/layers/parameters.h"
#include "distributed/sequence_parallel.h"

namespace longnet {

/// A part of a batch of sequences: the positions of one shard.
struct Batch {
  at::Tensor tokens;                  ///< (B, n) int64
  at::Tensor targets;                 ///< (B, n) int64, or ignored_target
  std::vector<std::int64_t> samples;  ///< (B) the index of each sequence in the step's global batch
  SequenceShard shard;
};

/// The batch with its tensors on another device. The host does not wait for the copies.
Batch on_device(const Batch& batch, c10::Device device);

/// How a forward pass runs.
struct Pass {
  at::ScalarType dtype = at::kFloat;  ///< of activations; parameters may be wider
  bool training = false;              ///< with dropout
  bool recompute = false;             ///< layers forget their activations and compute them again
  std::uint64_t seed = 0;             ///< with `step`, of dropout
  std::int64_t step = 0;
};

/// The loss of a part of a batch.
struct LossSum {
  at::Tensor sum;    ///< scalar, float64: summed over the labels that count; differentiable
  at::Tensor count;  ///< scalar, int64: how many labels count
};

/// What is trained. A model sees a shard of a sequence, never a rank.
class Model {
 public:
  virtual ~Model() = default;

  virtual ParameterSet& parameters() = 0;

  /// The loss of this rank's part of the batch, on the parameters' device. Collective over the ranks that share the
  /// sequences.
  virtual LossSum loss(const Batch& batch, const Pass& pass) = 0;

  /// Bytes of keys and values that one forward pass brings to this rank.
  virtual std::int64_t forward_exchange_bytes(std::int64_t length, std::int64_t batch, at::ScalarType dtype) = 0;
};

/// A model that has been described but not built: its configuration is read and found good, nothing is allocated.
struct ModelSpecification {
  nlohmann::ordered_json json;  ///< the configuration with all defaults
  std::int64_t vocabulary;      ///< tokens must be below
  /// Advice for a sequence of `length` tokens, if there is any.
  std::function<std::optional<std::string>(std::int64_t length)> warning;
  std::function<std::unique_ptr<Model>(SequenceParallel& parallel, const at::TensorOptions& parameter_options,
                                       std::uint64_t seed)>
      build;
};

}  // namespace longnet
