#include "models/transformer.h"

#include <ATen/ATen.h>

#include <array>
#include <utility>

#include "core/configuration/limits.h"
#include "core/error.h"
#include "core/layers/position_encoding.h"
#include "core/layers/recompute.h"

namespace longnet {

template <>
struct ConfigNames<HeadOffsets> {
  static constexpr std::array<std::pair<const char*, HeadOffsets>, 2> names{
      {{"cyclic", HeadOffsets::Cyclic}, {"block", HeadOffsets::Block}}};
};

template <>
struct ConfigNames<Positions> {
  static constexpr std::array<std::pair<const char*, Positions>, 5> names{{{"none", Positions::None},
                                                                           {"rope", Positions::Rope},
                                                                           {"xpos", Positions::Xpos},
                                                                           {"sinusoidal", Positions::Sinusoidal},
                                                                           {"grid", Positions::Grid}}};
};

template <>
struct ConfigNames<Compatibility> {
  static constexpr std::array<std::pair<const char*, Compatibility>, 2> names{
      {{"none", Compatibility::None}, {"torchscale", Compatibility::Torchscale}}};
};

namespace {

template <typename Fields>
void describe(Fields& field, TransformerConfig& config) {
  field("width", config.width, between(1, limits::width));
  field("layers", config.layers, between(1, limits::layers));
  field("heads", config.heads, between(1, limits::width));
  field("feed_forward", config.feed_forward, between(1, limits::feed_forward));
  field("positions", config.positions);
  field("dropout", config.dropout, from_zero_to_below(1));
  field("compatibility", config.compatibility);
}

template <typename Fields>
void describe(Fields& field, AttentionConfig& config) {
  field("segments", config.segments, between(1, limits::positions));
  field("rates", config.rates, between(1, limits::positions));
  field("head_offsets", config.head_offsets);
}

void require_positions(const ConfigReader& reader, const TransformerConfig& config) {
  const bool rotates = config.positions == Positions::Rope || config.positions == Positions::Xpos;
  if (rotates && config.head_width() % 2 != 0) {
    reader.fail("positions", "turns pairs of channels, which needs an even head width, but width / heads is " +
                                 std::to_string(config.head_width()));
  }
  const std::int64_t multiple = config.positions == Positions::Grid         ? 4
                                : config.positions == Positions::Sinusoidal ? 2
                                                                            : 1;
  if (config.width % multiple != 0) {
    reader.fail("positions", "needs a width that is a multiple of " + std::to_string(multiple));
  }
}

}  // namespace

Mixture AttentionConfig::mixture(Compatibility compatibility) const {
  Mixture mixture = make_mixture(segments, rates, head_offsets);
  mixture.zero_keys = compatibility == Compatibility::Torchscale;
  return mixture;
}

void read_attention(ConfigReader& reader, const char* key, AttentionConfig& config) {
  reader.require(key);
  auto section = reader.section(key);
  for (const char* required : {"segments", "rates"}) section.require(required);
  describe(section, config);
  section.finish();
  if (!section.complete()) return;
  try {
    config.mixture();
  } catch (const ConfigError& error) {
    reader.fail(key, std::string("cannot work: ") + error.what());
  }
}

nlohmann::ordered_json to_json(const AttentionConfig& config) {
  ConfigWriter writer;
  AttentionConfig described = config;
  describe(writer, described);
  return writer.json;
}

void read_transformer(ConfigReader& reader, TransformerConfig& config) {
  for (const char* key : {"width", "layers", "heads", "feed_forward"}) reader.require(key);
  describe(reader, config);
  const bool torchscale = config.compatibility == Compatibility::Torchscale;
  if (torchscale) config.attention.head_offsets = HeadOffsets::Block;
  read_attention(reader, "attention", config.attention);
  if (torchscale && config.attention.head_offsets != HeadOffsets::Block) {
    reader.fail("compatibility", "is torchscale, whose head_offsets are block");
  }
  if (!reader.complete()) return;
  if (config.width % config.heads != 0) {
    reader.fail("heads", "is " + std::to_string(config.heads) + ", which does not divide the width " +
                             std::to_string(config.width));
  }
  require_positions(reader, config);
}

void write_transformer(ConfigWriter& writer, const TransformerConfig& config) {
  TransformerConfig described = config;
  describe(writer, described);
  writer.json["attention"] = to_json(config.attention);
}

std::optional<std::string> coverage_warning(const TransformerConfig& config, std::int64_t length) {
  const Mixture mixture = config.attention.mixture(config.compatibility);
  if (mixture.zero_keys) require_rows_in_place(mixture, length);
  if (config.positions == Positions::Xpos && length > longest_xpos_sequence(at::kFloat)) {
    throw ConfigError("model.positions is xpos, whose scales overflow beyond " +
                      std::to_string(longest_xpos_sequence(at::kFloat)) + " tokens, but the sequence has " +
                      std::to_string(length) + "; use rope");
  }
  const auto uncovered = find_uncovered_query(mixture, config.heads, length);
  if (!uncovered) return {};
  return "model.attention leaves queries without any key, position " + std::to_string(uncovered->position) +
         " of head " + std::to_string(uncovered->head) +
         " for one: their attention is 0; a branch of rate 1 covers every position";
}

at::Tensor add_positions(const at::Tensor& x, Positions positions, Range own) {
  if (positions != Positions::Sinusoidal) return x;
  const auto places = at::arange(own.begin, own.end, x.options().dtype(at::kLong));
  return x + sinusoidal_encoding(places, x.size(-1)).to(x.scalar_type());
}

QueryKeyPositions::QueryKeyPositions(Positions positions, Range own, std::int64_t length, std::int64_t head_width,
                                     const at::TensorOptions& options) {
  if (positions == Positions::Rope) {
    rotations_.q = rotations_.k = rotary_rotations(own, head_width, options);
  } else if (positions == Positions::Xpos) {
    const auto type = c10::typeMetaToScalarType(options.dtype());
    if ((length > 0 ? length : 2 * own.end) > longest_xpos_sequence(type)) {
      throw ConfigError("model.positions is xpos, whose scales overflow in a sequence of " +
                        std::to_string(std::max(length, own.end)) + " tokens; use rope");
    }
    rotations_ = xpos_rotations(own, length, head_width, options);
  }
}

Transformer::Transformer(ParameterSet& parameters, const TransformerConfig& config, SequenceParallel& parallel,
                         bool causal, const std::string& prefix)
    : config_(config),
      prefix_(prefix),
      attention_(parallel.attention(config.attention.mixture(config.compatibility), config.heads, causal)) {
  const LayerSettings settings{config.width, config.heads, config.feed_forward, config.layers, config.dropout};
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    layers_.emplace_back(parameters, prefix + "layers." + std::to_string(layer), settings);
  }
  layer_norm_ = std::make_unique<LayerNorm>(parameters, prefix + "layer_norm", config.width);
}

at::Tensor Transformer::operator()(const at::Tensor& x, const Batch& batch, const Pass& pass,
                                   const Visitor& visit) const {
  const auto key_mask = batch.key_mask(x.device());
  if (config_.compatibility == Compatibility::Torchscale) {
    require_rows_in_place(config_.attention.mixture(), batch.shard.length);
    if (key_mask) throw ConfigError("model.compatibility torchscale takes no batches of unequal lengths");
  }
  const auto attend = [this, shard = batch.shard, key_mask, observe = pass.observe](
                          std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    if (observe) {
      const std::string name = prefix_ + "layers." + std::to_string(layer) + ".self_attn";
      observe({name, *attention_, q, k, shard, key_mask});
    }
    return (*attention_)(q, k, v, shard, key_mask).out;
  };
  return run(x, batch.shard, pass, batch.samples, attend, visit);
}

at::Tensor Transformer::run(const at::Tensor& input, const SequenceShard& shard, const Pass& pass,
                            const std::vector<std::int64_t>& samples, const AttendInLayer& attend,
                            const Visitor& visit) const {
  const QueryKeyPositions positions(config_.positions, shard.own, shard.length, config_.head_width(), input.options());
  auto x = add_positions(input, config_.positions, shard.own);
  if (visit) visit(x);
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    const LayerAttention attention = [attend, index, positions](const at::Tensor& q, const at::Tensor& k,
                                                                const at::Tensor& v) {
      return attend(index, positions.query(q), positions.key(k), v);
    };
    const DropoutSite site{pass.seed, pass.step, samples, shard.own.begin, static_cast<std::int64_t>(index), 0};
    const auto layer = [&layer = layers_[index], attention, site, training = pass.training](const at::Tensor& rows) {
      return layer(rows, attention, training ? &site : nullptr);
    };
    x = pass.recompute ? recompute(layer, x) : layer(x);
    if (visit) visit(x);
  }
  return (*layer_norm_)(x);
}

}  // namespace longnet
