#include "models/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/configuration/limits.h"

namespace longnet {

namespace {

DecoderConfig read(ConfigReader& reader) {
  DecoderConfig config;
  reader.require("vocabulary");
  reader("vocabulary", config.vocabulary, between(1, limits::tokens));
  reader("tied_embeddings", config.tied_embeddings);
  read_transformer(reader, config.transformer);
  if (config.transformer.positions == Positions::Grid) {
    reader.fail("positions", "is grid, but a decoder reads no coordinates");
  }
  reader.finish();
  return config;
}

nlohmann::ordered_json to_json(const DecoderConfig& config) {
  ConfigWriter writer;
  writer("type", std::string("decoder"));
  writer("vocabulary", config.vocabulary, between(1, limits::tokens));
  write_transformer(writer, config.transformer);
  writer("tied_embeddings", config.tied_embeddings);
  return writer.json;
}

}  // namespace

Decoder::Decoder(const DecoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
                 std::uint64_t seed)
    : config_(config), parameters_(parameter_options, seed) {
  const std::int64_t width = config.transformer.width;
  const auto embedding = normal(1 / std::sqrt(static_cast<double>(width)));
  embed_tokens_ = parameters_.add("embed_tokens.weight", {config.vocabulary, width}, embedding);
  transformer_ = std::make_unique<Transformer>(parameters_, config.transformer, parallel, /*causal=*/true);
  if (!config.tied_embeddings) {
    output_projection_ = parameters_.add("output_projection.weight", {config.vocabulary, width}, embedding);
  }
  parameters_.flatten();
}

at::Tensor Decoder::embed(const at::Tensor& tokens, at::ScalarType dtype) const {
  return at::embedding(embed_tokens_, tokens).to(dtype);
}

at::Tensor Decoder::hidden(const Batch& batch, const Pass& pass) {
  return (*transformer_)(embed(batch.at("tokens"), pass.dtype), batch, pass);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  return at::linear(hidden, output_weight().to(hidden.scalar_type()));
}

LossSum Decoder::loss(const Batch& batch, const Pass& pass) {
  const auto& targets = batch.at("tokens.next");
  const auto loss = linear_cross_entropy(hidden(batch, pass).flatten(0, 1), output_weight(), targets.flatten());
  return {loss.sum, targets.ne(ignored_target).sum()};
}

DecoderSession::DecoderSession(Decoder& decoder, at::ScalarType dtype) : decoder_(decoder) {
  pass_.dtype = dtype;
  const TransformerConfig& stack = decoder.config_.transformer;
  for (std::int64_t layer = 0; layer < stack.layers; ++layer)
    caches_.emplace_back(stack.attention.mixture(), stack.heads);
}

at::Tensor DecoderSession::run(const at::Tensor& tokens, Range positions,
                               const Transformer::AttendInLayer& attend) const {
  const c10::NoGradGuard no_gradient;
  const auto x = decoder_.embed(tokens.unsqueeze(0), pass_.dtype);
  const auto hidden = decoder_.transformer_->run(x, {0, positions}, pass_, {}, attend);
  return decoder_.logits(hidden[0][-1]);
}

at::Tensor DecoderSession::begin(const at::Tensor& tokens) {
  const SequenceShard whole{tokens.size(0), {0, tokens.size(0)}};
  return run(tokens, whole.own, [&](std::size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    caches_[layer].fill(k, v);
    return decoder_.transformer_->attend(q, k, v, whole);
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
  return {.json = to_json(config),
          .fields = {{.name = "tokens", .size = config.vocabulary, .next = true, .size_key = "model.vocabulary"}},
          .predicts_tokens = true,
          .warning = [config](std::int64_t length) { return coverage_warning(config.transformer, length); },
          .build = [config](SequenceParallel& parallel, const at::TensorOptions& options,
                            std::uint64_t seed) { return std::make_unique<Decoder>(config, parallel, options, seed); }};
}

}  // namespace longnet
