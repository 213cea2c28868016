#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/data/dataset.h"
#include "core/layers/parameters.h"
#include "distributed/sequence_parallel.h"

namespace longnet {

/// A field of the sequences of a batch.
struct FieldBatch {
  at::Tensor values;  ///< (sequences, rows[, channels]), in the shard's positions; rows beyond a sequence's end are 0
  std::vector<std::int64_t> sequences;  ///< which sequences of the batch have it, in order
};

/// A part of a batch of sequences: the positions of one shard. Sequences shorter than the longest are padded.
struct Batch {
  std::map<std::string, FieldBatch> fields;
  std::vector<std::int64_t> samples;  ///< (B) the index of each sequence in the step's global batch
  std::vector<std::int64_t> lengths;  ///< (B) positions of each sequence
  SequenceShard shard;                ///< of the longest sequence

  std::int64_t size() const { return static_cast<std::int64_t>(samples.size()); }
  /// The values of a field that all sequences have. Throws DataError for a batch without it.
  const at::Tensor& at(const std::string& field) const;
  /// Of the last `rows` positions of `shard.own` (all but those that the model put in front), what lies in each
  /// sequence: (B, rows) bool. Nothing when all sequences are equally long.
  std::optional<at::Tensor> own_mask(std::int64_t rows, c10::Device device) const;
  /// The same over the whole sequence, (B, N): see dilated_attention.
  std::optional<at::Tensor> key_mask(c10::Device device) const;
};

/// The batch with its tensors on another device. The host does not wait for the copies.
Batch on_device(const Batch& batch, c10::Device device);

/// What an attention of the model works on: for whoever wants to see what it looks at.
struct AttentionView {
  const std::string& name;  ///< of its parameters, as `layers.0.self_attn`
  SequenceAttention& attention;
  const at::Tensor &q, &k;  ///< (B, n, H, D), with their positions
  const SequenceShard& shard;
  const std::optional<at::Tensor>& key_mask;
};

/// How a forward pass runs.
struct Pass {
  at::ScalarType dtype = at::kFloat;  ///< of activations; parameters may be wider
  bool training = false;              ///< with dropout
  bool recompute = false;             ///< layers forget their activations and compute them again
  std::uint64_t seed = 0;             ///< with `step`, of dropout
  std::int64_t step = 0;
  std::function<void(const AttentionView&)> observe = {};  ///< called by every attention
};

/// The loss of a part of a batch.
struct LossSum {
  at::Tensor sum;           ///< scalar, float64: summed over the labels that count; differentiable
  at::Tensor count;         ///< scalar, int64: how many labels count
  at::Tensor metrics = {};  ///< (metrics of the specification), float64: each summed over the labels that count
};

/// What is trained. A model sees a shard of a sequence, never a rank.
class Model {
 public:
  virtual ~Model() = default;

  virtual ParameterSet& parameters() = 0;

  /// The loss of this rank's part of the batch, on the parameters' device. Collective over the ranks that share the
  /// sequences.
  virtual LossSum loss(const Batch& batch, const Pass& pass) = 0;

  /// What the model says about each sequence, by name: (B, ...), right on the shard that is_first. Collective as
  /// `loss` is. Needs no labels.
  virtual std::map<std::string, at::Tensor> outputs(const Batch&, const Pass&) { return {}; }
};

/// A model that has been described but not built: its configuration is read and found good, nothing is allocated.
struct ModelSpecification {
  nlohmann::ordered_json json;         ///< the configuration with all defaults
  std::vector<Field> fields;           ///< what it reads of a sequence, its labels last
  std::int64_t prefix = 0;             ///< positions that it puts before those of the data
  bool predicts_tokens = false;        ///< its loss is in nats a token
  bool trainable = true;               ///< it has a loss
  bool equal_lengths = false;          ///< a batch must hold sequences of equal length
  std::vector<std::string> metrics{};  ///< what LossSum::metrics are
  /// Advice for a sequence of `length` tokens, if there is any. Throws ConfigError for a length that cannot work.
  std::function<std::optional<std::string>(std::int64_t length)> warning;
  std::function<std::unique_ptr<Model>(SequenceParallel& parallel, const at::TensorOptions& parameter_options,
                                       std::uint64_t seed)>
      build;
};

}  // namespace longnet
