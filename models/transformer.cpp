#include "models/transformer.h"

#include <ATen/ATen.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "core/layers/recompute.h"
#include "core/layers/rotary.h"

namespace longnet {

template <>
struct ConfigNames<HeadOffsets> {
  static constexpr std::array<std::pair<const char*, HeadOffsets>, 2> names{
      {{"cyclic", HeadOffsets::Cyclic}, {"block", HeadOffsets::Block}}};
};

template <>
struct ConfigNames<Positions> {
  static constexpr std::array<std::pair<const char*, Positions>, 2> names{
      {{"none", Positions::None}, {"rope", Positions::Rope}}};
};

namespace {

template <typename Fields>
void describe(Fields& field, TransformerConfig& config) {
  field("width", config.width, at_least(1));
  field("layers", config.layers, at_least(1));
  field("heads", config.heads, at_least(1));
  field("feed_forward", config.feed_forward, at_least(1));
  field("positions", config.positions);
  field("dropout", config.dropout, from_zero_to_below(1));
}

template <typename Fields>
void describe_attention(Fields& field, TransformerConfig& config) {
  field("segments", config.segments);
  field("rates", config.rates);
  field("head_offsets", config.head_offsets);
}

}  // namespace

void read_transformer(ConfigReader& reader, TransformerConfig& config) {
  for (const char* key : {"width", "layers", "heads", "feed_forward", "attention"}) reader.require(key);
  describe(reader, config);
  auto attention = reader.section("attention");
  for (const char* key : {"segments", "rates"}) attention.require(key);
  describe_attention(attention, config);
  attention.finish();

  try {
    config.mixture();
  } catch (const ConfigError& error) {
    reader.fail("attention", std::string("cannot work: ") + error.what());
  }
  if (config.width % config.heads != 0) {
    reader.fail("heads", "is " + std::to_string(config.heads) + ", which does not divide the width " +
                             std::to_string(config.width));
  }
  if (config.positions == Positions::Rope && config.head_width() % 2 != 0) {
    reader.fail("positions",
                "is rope, which needs an even head width, but width / heads is " + std::to_string(config.head_width()));
  }
}

void write_transformer(ConfigWriter& writer, const TransformerConfig& config) {
  TransformerConfig copy = config;
  ConfigWriter attention;
  describe(writer, copy);
  describe_attention(attention, copy);
  writer.json["attention"] = attention.json;
}

std::optional<std::string> coverage_warning(const TransformerConfig& config, std::int64_t length) {
  const auto uncovered = find_uncovered_query(config.mixture(), config.heads, length);
  if (!uncovered) return {};
  return "model.attention leaves queries without any key, position " + std::to_string(uncovered->position) +
         " of head " + std::to_string(uncovered->head) +
         " for one: their attention is 0; a branch of rate 1 covers every position";
}

Transformer::Transformer(ParameterSet& parameters, const TransformerConfig& config) : config_(config) {
  const LayerSettings settings{config.width, config.heads, config.feed_forward, config.layers, config.dropout};
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    layers_.emplace_back(parameters, "layers." + std::to_string(layer), settings);
  }
  layer_norm_ = std::make_unique<LayerNorm>(parameters, "layer_norm", config.width);
}

at::Tensor Transformer::operator()(const at::Tensor& input, Range positions, const Pass& pass,
                                   const std::vector<std::int64_t>& samples, const AttendInLayer& attend) const {
  at::Tensor rotations;
  if (config_.positions == Positions::Rope) {
    rotations = rotary_rotations(positions, config_.head_width(), input.options());
  }
  auto x = input;
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    const LayerAttention attention = [attend, index, rotations](const at::Tensor& q, const at::Tensor& k,
                                                                const at::Tensor& v) {
      const auto placed = [&](const at::Tensor& rows) { return rotations.defined() ? rotate(rows, rotations) : rows; };
      return attend(index, placed(q), placed(k), v);
    };
    const DropoutSite site{pass.seed, pass.step, samples, positions.begin, static_cast<std::int64_t>(index), 0};
    const auto layer = [&layer = layers_[index], attention, site, training = pass.training](const at::Tensor& rows) {
      return layer(rows, attention, training ? &site : nullptr);
    };
    x = pass.recompute ? recompute(layer, x) : layer(x);
  }
  return (*layer_norm_)(x);
}

}  // namespace longnet
