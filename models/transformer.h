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
#include "models/longnet_layer.h"
#include "models/model.h"

namespace longnet {

enum class Positions { None, Rope };

/// What every LongNet model has in common: its stack of layers.
struct TransformerConfig {
  std::int64_t width = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t feed_forward = 0;
  std::vector<std::int64_t> segments;
  std::vector<std::int64_t> rates;
  HeadOffsets head_offsets = HeadOffsets::Cyclic;
  Positions positions = Positions::Rope;
  double dropout = 0;

  std::int64_t head_width() const { return width / heads; }
  Mixture mixture() const { return make_mixture(segments, rates, head_offsets); }
};

/// Reads the stack's keys of a model's section, `attention` included, and refuses what cannot work.
void read_transformer(ConfigReader& reader, TransformerConfig& config);

/// The same keys with all defaults, beside those that are in `writer`.
void write_transformer(ConfigWriter& writer, const TransformerConfig& config);

/// Advice about queries that no branch covers, if a sequence of `length` tokens has such.
std::optional<std::string> coverage_warning(const TransformerConfig& config, std::int64_t length);

/// LongNet layers and a last normalization.
class Transformer {
 public:
  Transformer(ParameterSet& parameters, const TransformerConfig& config);

  /// Attention of one layer; q and k carry their positions.
  using AttendInLayer =
      std::function<at::Tensor(std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

  /// x (B, n, C), whose tokens lie at `positions`, through all layers. `samples` (B): see Batch.
  at::Tensor operator()(const at::Tensor& x, Range positions, const Pass& pass,
                        const std::vector<std::int64_t>& samples, const AttendInLayer& attend) const;

 private:
  TransformerConfig config_;
  std::vector<LongNetLayer> layers_;
  std::unique_ptr<LayerNorm> layer_norm_;
};

}  // namespace longnet
