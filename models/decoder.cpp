#include "models/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
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
void describe(Fields& field, DecoderConfig& config) {
  field("vocabulary", config.vocabulary, at_least(1));
  field("width", config.width, at_least(1));
  field("layers", config.layers, at_least(1));
  field("heads", config.heads, at_least(1));
  field("feed_forward", config.feed_forward, at_least(1));
  field("positions", config.positions);
  field("dropout", config.dropout, from_zero_to_below(1));
  field("tied_embeddings", config.tied_embeddings);
}

template <typename Fields>
void describe_attention(Fields& field, DecoderConfig& config) {
  field("segments", config.segments);
  field("rates", config.rates);
  field("head_offsets", config.head_offsets);
}

Mixture mixture_of(const DecoderConfig& config) {
  return make_mixture(config.segments, config.rates, config.head_offsets);
}

DecoderConfig read(ConfigReader& reader) {
  DecoderConfig config;
  for (const char* key : {"vocabulary", "width", "layers", "heads", "feed_forward", "attention"}) reader.require(key);
  describe(reader, config);
  auto attention = reader.section("attention");
  for (const char* key : {"segments", "rates"}) attention.require(key);
  describe_attention(attention, config);
  attention.finish();
  reader.finish();

  try {
    mixture_of(config);
  } catch (const ConfigError& error) {
    reader.fail("attention", std::string("cannot work: ") + error.what());
  }
  if (config.width % config.heads != 0) {
    reader.fail("heads", "is " + std::to_string(config.heads) + ", which does not divide the width " +
                             std::to_string(config.width));
  }
  if (config.positions == Positions::Rope && config.width / config.heads % 2 != 0) {
    reader.fail("positions", "is rope, which needs an even head width, but width / heads is " +
                                 std::to_string(config.width / config.heads));
  }
  return config;
}

nlohmann::ordered_json to_json(DecoderConfig config) {
  ConfigWriter writer, attention;
  writer("type", std::string("decoder"));
  describe(writer, config);
  describe_attention(attention, config);
  writer.json["attention"] = attention.json;
  return writer.json;
}

std::optional<std::string> coverage_warning(const DecoderConfig& config, std::int64_t length) {
  const auto uncovered = find_uncovered_query(mixture_of(config), config.heads, length);
  if (!uncovered) return {};
  return "model.attention leaves queries without any key, position " + std::to_string(uncovered->position) +
         " of head " + std::to_string(uncovered->head) +
         " for one: their attention is 0; a branch of rate 1 covers every position";
}

}  // namespace

Decoder::Decoder(const DecoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
                 std::uint64_t seed)
    : config_(config),
      parameters_(parameter_options, seed),
      attention_(parallel.attention(mixture_of(config), config.heads, /*causal=*/true)) {
  const auto embedding = normal(1 / std::sqrt(static_cast<double>(config.width)));
  const LayerSettings settings{config.width, config.heads, config.feed_forward, config.layers, config.dropout};
  embed_tokens_ = parameters_.add("embed_tokens.weight", {config.vocabulary, config.width}, embedding);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    layers_.emplace_back(parameters_, "layers." + std::to_string(layer), settings);
  }
  layer_norm_ = std::make_unique<LayerNorm>(parameters_, "layer_norm", config.width);
  if (!config.tied_embeddings) {
    output_projection_ = parameters_.add("output_projection.weight", {config.vocabulary, config.width}, embedding);
  }
  parameters_.flatten();
}

at::Tensor Decoder::run(const at::Tensor& tokens, Range positions, const Pass& pass,
                        const std::vector<std::int64_t>& samples, const AttendInLayer& attend) const {
  auto x = at::embedding(embed_tokens_, tokens).to(pass.dtype);
  at::Tensor rotations;
  if (config_.positions == Positions::Rope) {
    rotations = rotary_rotations(positions, config_.width / config_.heads, x.options());
  }
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    const LayerAttention attention = [attend, index, rotations](const at::Tensor& q, const at::Tensor& k,
                                                                const at::Tensor& v) {
      const auto placed = [&](const at::Tensor& rows) { return rotations.defined() ? rotate(rows, rotations) : rows; };
      return attend(index, placed(q), placed(k), v);
    };
    const DropoutSite site{pass.seed, pass.step, samples, positions.begin, static_cast<std::int64_t>(index), 0};
    const auto layer = [&layer = layers_[index], attention, site, training = pass.training](const at::Tensor& input) {
      return layer(input, attention, training ? &site : nullptr);
    };
    x = pass.recompute ? recompute(layer, x) : layer(x);
  }
  return (*layer_norm_)(x);
}

at::Tensor Decoder::hidden(const Batch& batch, const Pass& pass) {
  const auto attend = [this, shard = batch.shard](std::size_t, const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v) { return (*attention_)(q, k, v, shard).out; };
  return run(batch.tokens, batch.shard.own, pass, batch.samples, attend);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  return at::linear(hidden, output_weight().to(hidden.scalar_type()));
}

CrossEntropy Decoder::loss(const Batch& batch, const Pass& pass) {
  return linear_cross_entropy(hidden(batch, pass).flatten(0, 1), output_weight(), batch.targets.flatten());
}

std::int64_t Decoder::forward_exchange_bytes(std::int64_t length, std::int64_t batch, at::ScalarType dtype) {
  return config_.layers * attention_->forward_bytes(length, batch, config_.width / config_.heads,
                                                    static_cast<std::int64_t>(c10::elementSize(dtype)));
}

DecoderSession::DecoderSession(Decoder& decoder, at::ScalarType dtype) : decoder_(decoder) {
  pass_.dtype = dtype;
  const auto mixture = mixture_of(decoder.config_);
  for (std::int64_t layer = 0; layer < decoder.config_.layers; ++layer)
    caches_.emplace_back(mixture, decoder.config_.heads);
}

at::Tensor DecoderSession::run(const at::Tensor& tokens, Range positions, const Decoder::AttendInLayer& attend) const {
  const c10::NoGradGuard no_gradient;
  const auto hidden = decoder_.run(tokens.unsqueeze(0), positions, pass_, {}, attend);
  return decoder_.logits(hidden[0][-1]);
}

at::Tensor DecoderSession::begin(const at::Tensor& tokens) {
  const SequenceShard whole{tokens.size(0), {0, tokens.size(0)}};
  return run(tokens, whole.own, [&](std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    caches_[layer].fill(k, v);
    return (*decoder_.attention_)(q, k, v, whole).out;
  });
}

at::Tensor DecoderSession::next(std::int64_t token) {
  const std::int64_t position = caches_.front().position();
  return run(at::full({1}, token, decoder_.parameters_.options().dtype(at::kLong)), {position, position + 1},
             [&](std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
               return caches_[layer].attend(q, k, v);
             });
}

ModelSpecification specify_decoder(ConfigReader reader) {
  const DecoderConfig config = read(reader);
  return {to_json(config), config.vocabulary,
          [config](std::int64_t length) { return coverage_warning(config, length); },
          [config](SequenceParallel& parallel, const at::TensorOptions& options, std::uint64_t seed) {
            return std::make_unique<Decoder>(config, parallel, options, seed);
          }};
}

}  // namespace longnet
