#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/attention/mixture.h"
#include "core/configuration/config_section.h"
#include "core/layers/linear.h"
#include "core/layers/parameters.h"
#include "core/layers/rotary.h"
#include "models/longnet_layer.h"
#include "models/model.h"

namespace longnet {

enum class Positions {
  None,
  Rope,
  Xpos,
  Sinusoidal,  ///< added to the input
  Grid,        ///< of coordinates, added to the input by models that read some
};

/// Whose results a model reproduces where torchscale's differ from the definition: see docs/compatibility.md.
enum class Compatibility { None, Torchscale };

/// The section `attention` of a model.
struct AttentionConfig {
  std::vector<std::int64_t> segments;
  std::vector<std::int64_t> rates;
  HeadOffsets head_offsets = HeadOffsets::Cyclic;

  Mixture mixture(Compatibility compatibility = Compatibility::None) const;
};

/// Reads it. Refuses what cannot work.
void read_attention(ConfigReader& reader, const char* key, AttentionConfig& config);
nlohmann::ordered_json to_json(const AttentionConfig& config);

/// What every LongNet model has in common: its stack of layers.
struct TransformerConfig {
  std::int64_t width = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t feed_forward = 0;
  AttentionConfig attention = {};
  Positions positions = Positions::Rope;
  double dropout = 0;
  Compatibility compatibility = Compatibility::None;

  std::int64_t head_width() const { return width / heads; }
};

/// Reads the stack's keys of a model's section, `attention` included, and refuses what cannot work.
void read_transformer(ConfigReader& reader, TransformerConfig& config);

/// The same keys with all defaults, beside those that are in `writer`.
void write_transformer(ConfigWriter& writer, const TransformerConfig& config);

/// Advice about queries that no branch covers, if a sequence of `length` tokens has such. Throws ConfigError for a
/// length that the stack's positions or compatibility cannot take.
std::optional<std::string> coverage_warning(const TransformerConfig& config, std::int64_t length);

/// x (B, n, C) with the positions `own` of its tokens, where they are of a kind that is added to the input.
at::Tensor add_positions(const at::Tensor& x, Positions positions, Range own);

/// What q and k are multiplied with for their positions.
class QueryKeyPositions {
 public:
  /// For the tokens at `own` of a sequence of `length`, and activations like `options`.
  QueryKeyPositions(Positions positions, Range own, std::int64_t length, std::int64_t head_width,
                    const at::TensorOptions& options);

  at::Tensor query(const at::Tensor& q) const { return rotations_.q.defined() ? rotate(q, rotations_.q) : q; }
  at::Tensor key(const at::Tensor& k) const { return rotations_.k.defined() ? rotate(k, rotations_.k) : k; }

 private:
  Rotations rotations_;
};

/// LongNet layers and a last normalization.
class Transformer {
 public:
  /// Parameters are named below `prefix`, which is empty or ends in a dot.
  Transformer(ParameterSet& parameters, const TransformerConfig& config, SequenceParallel& parallel, bool causal,
              const std::string& prefix = "");

  /// Sees the activations before the first layer and after each.
  using Visitor = std::function<void(const at::Tensor& x)>;

  /// x (B, n, C), at the positions of the batch's shard, through all layers.
  at::Tensor operator()(const at::Tensor& x, const Batch& batch, const Pass& pass, const Visitor& visit = {}) const;

  /// Attention of one layer; q and k carry their positions.
  using AttendInLayer =
      std::function<at::Tensor(std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

  /// The same with another attention. `shard.length` is 0 for a sequence that is still growing: xPos then measures
  /// positions from its beginning.
  at::Tensor run(const at::Tensor& x, const SequenceShard& shard, const Pass& pass,
                 const std::vector<std::int64_t>& samples, const AttendInLayer& attend,
                 const Visitor& visit = {}) const;

  /// The stack's attention: q, k, v (B, n, H, D) of `shard`.
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SequenceShard& shard) const {
    return (*attention_)(q, k, v, shard).out;
  }

 private:
  TransformerConfig config_;
  std::string prefix_;
  std::unique_ptr<SequenceAttention> attention_;
  std::vector<LongNetLayer> layers_;
  std::unique_ptr<LayerNorm> layer_norm_;
};

}  // namespace longnet
