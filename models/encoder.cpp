#include "models/encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/configuration/limits.h"
#include "core/layers/linear_cross_entropy.h"
#include "core/layers/token_masking.h"

namespace longnet {
namespace {

using HeadType = HeadConfig::Type;

template <typename Fields>
void describe(Fields& field, EncoderConfig& config) {
  if (config.vocabulary > 0) field("vocabulary", config.vocabulary, between(1, limits::tokens));
  if (config.channels > 0) field("channels", config.channels, between(1, limits::width));
  if (config.channels > 0) field("embed_frames", config.embed_frames);
  field("field", config.field);
  field("class_token", config.stack.class_token);
}

template <typename Fields>
void describe_grid(Fields& field, EncoderConfig& config) {
  field("coordinates", config.stack.coordinates);
  field("cell", config.stack.cell, above(0));
}

EncoderConfig read(ConfigReader& reader) {
  EncoderConfig config;
  reader("vocabulary", config.vocabulary, between(0, limits::tokens));
  reader("channels", config.channels, between(0, limits::width));
  if ((config.vocabulary > 0) == (config.channels > 0)) {
    reader.fail("vocabulary", "or model.channels must be given: an encoder reads tokens or frames");
  }
  config.field = config.vocabulary > 0 ? "tokens" : "frames";
  describe(reader, config);
  read_transformer(reader, config.stack.transformer);
  if (reader.complete() && !config.embed_frames && config.channels != config.stack.transformer.width) {
    reader.fail("embed_frames", "is false, so that model.channels must be model.width");
  }
  if (config.stack.transformer.positions == Positions::Grid) {
    auto grid = reader.section("grid");
    describe_grid(grid, config);
    grid.finish();
  }
  read_head(reader, config.head,
            {HeadType::MaskedTokens, HeadType::Classification, HeadType::Regression, HeadType::None});
  if (config.head.type == HeadType::MaskedTokens && config.vocabulary == 0) {
    reader.fail("head", "guesses masked tokens, but the encoder reads frames");
  }
  if (config.head.pools() && config.head.pooling == Pooling::ClassToken && !config.stack.class_token) {
    reader.fail("head", "pools by the class token, which model.class_token: true would bring");
  }
  reader.finish();
  return config;
}

nlohmann::ordered_json to_json(EncoderConfig config) {
  ConfigWriter writer;
  writer("type", std::string("encoder"));
  describe(writer, config);
  write_transformer(writer, config.stack.transformer);
  if (config.stack.transformer.positions == Positions::Grid) {
    ConfigWriter grid;
    describe_grid(grid, config);
    writer.json["grid"] = grid.json;
  }
  writer.json["head"] = to_json(config.head);
  return writer.json;
}

std::vector<Field> fields_of(const EncoderConfig& config) {
  std::vector<Field> fields;
  if (config.vocabulary > 0) {
    fields.push_back({.name = config.field, .size = config.vocabulary, .size_key = "model.vocabulary"});
  } else {
    fields.push_back({.name = config.field, .kind = Field::Kind::Frames, .size = config.channels});
  }
  if (config.stack.transformer.positions == Positions::Grid) {
    fields.push_back({.name = config.stack.coordinates, .kind = Field::Kind::Frames, .size = 2});
  }
  if (config.head.labels()) fields.push_back(config.head.label_field());
  return fields;
}

}  // namespace

Encoder::Encoder(const EncoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
                 std::uint64_t seed)
    : config_(config), parameters_(parameter_options, seed) {
  const std::int64_t width = config.stack.transformer.width;
  const auto embedding = normal(1 / std::sqrt(static_cast<double>(width)));
  const std::int64_t mask_tokens = config.head.type == HeadType::MaskedTokens ? 1 : 0;
  if (config.vocabulary > 0) {
    embed_tokens_ = parameters_.add("embed_tokens.weight", {config.vocabulary + mask_tokens, width}, embedding);
  } else if (config.embed_frames) {
    embed_frames_ = std::make_unique<Linear>(parameters_, "embed_frames", config.channels, width);
  }
  stack_ = std::make_unique<EncoderStack>(parameters_, config.stack, parallel);
  if (config.head.type == HeadType::MaskedTokens) {
    output_projection_ = parameters_.add("output_projection.weight", {config.vocabulary, width}, embedding);
  }
  if (config.head.labels()) head_ = std::make_unique<LabelHead>(parameters_, "head", width, config.head);
  parameters_.flatten();
}

at::Tensor Encoder::embed(const at::Tensor& input, const Batch& batch, at::ScalarType dtype) const {
  auto x = embed_tokens_.defined() ? at::embedding(embed_tokens_, input).to(dtype) : input.to(dtype);
  if (embed_frames_) x = (*embed_frames_)(x);
  return stack_->enter(x, batch);
}

at::Tensor Encoder::hidden(const at::Tensor& x, const Batch& batch, const Pass& pass) const {
  return (*stack_)(x, batch, pass);
}

at::Tensor Encoder::pooled(const at::Tensor& hidden, const Batch& batch) const {
  return stack_->pooled(hidden, config_.head.pooling, batch).to(hidden.scalar_type());
}

LossSum Encoder::guess_masked_tokens(const Batch& batch, const Pass& pass) const {
  // Outside of training the step is 0, so that losses can be compared. Layer -1: before the layers.
  const std::int64_t begin = std::max<std::int64_t>(0, batch.shard.own.begin - config_.stack.prefix());  // of the data
  const DropoutSite site{pass.seed, pass.training ? pass.step : 0, batch.samples, begin, -1, 0};
  auto [tokens, targets] = mask_tokens(batch.at(config_.field), config_.head.fraction, config_.vocabulary, site);
  const auto guessed = stack_->of_data(hidden(embed(tokens, batch, pass.dtype), batch, pass), batch);
  if (const auto mask = batch.own_mask(targets.size(1), targets.device())) {
    targets.masked_fill_(mask->logical_not(), ignored_target);
  }
  const auto loss = linear_cross_entropy(guessed.flatten(0, 1), output_projection_, targets.flatten());
  return {loss.sum, targets.ne(ignored_target).sum()};
}

LossSum Encoder::loss(const Batch& batch, const Pass& pass) {
  if (config_.head.type == HeadType::MaskedTokens) return guess_masked_tokens(batch, pass);
  const auto rows = hidden(embed(batch.at(config_.field), batch, pass.dtype), batch, pass);
  if (config_.head.pools()) return head_->loss(pooled(rows, batch), batch);
  return head_->loss(stack_->of_data(rows, batch), batch);
}

std::map<std::string, at::Tensor> Encoder::outputs(const Batch& batch, const Pass& pass) {
  const auto embedding = pooled(hidden(embed(batch.at(config_.field), batch, pass.dtype), batch, pass), batch);
  if (!config_.head.pools()) return {{"embedding", embedding}};
  return {{"embedding", embedding}, {"prediction", (*head_)(embedding)}};
}

ModelSpecification specify_encoder(ConfigReader reader) {
  const EncoderConfig config = read(reader);
  const std::int64_t prefix = config.stack.prefix();
  return {.json = to_json(config),
          .fields = fields_of(config),
          .prefix = prefix,
          .predicts_tokens = config.head.type == HeadType::MaskedTokens,
          .trainable = config.head.type != HeadType::None,
          .equal_lengths = config.stack.transformer.compatibility == Compatibility::Torchscale,
          .metrics = config.head.metrics(),
          .warning = [=](std::int64_t length) { return coverage_warning(config.stack.transformer, length + prefix); },
          .build = [config](SequenceParallel& parallel, const at::TensorOptions& options,
                            std::uint64_t seed) { return std::make_unique<Encoder>(config, parallel, options, seed); }};
}

}  // namespace longnet
