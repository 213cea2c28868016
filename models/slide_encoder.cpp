#include "models/slide_encoder.h"

#include <ATen/ATen.h>

#include "core/configuration/limits.h"

namespace longnet {
namespace {

using HeadType = HeadConfig::Type;

/// Every slide has a class token, and its tiles lie on a grid.
EncoderStackConfig stack_of(const SlideEncoderConfig& config) {
  return {config.transformer, "coords", static_cast<double>(config.cell), /*class_token=*/true};
}

template <typename Fields>
void describe(Fields& field, SlideEncoderConfig& config) {
  field("channels", config.channels, between(1, limits::width));
  field("cell", config.cell, between(1, limits::positions));
  field("pooling", config.pooling);
}

SlideEncoderConfig read(ConfigReader& reader) {
  SlideEncoderConfig config;
  config.transformer.positions = Positions::Grid;
  reader.require("channels");
  describe(reader, config);
  read_transformer(reader, config.transformer);
  if (config.transformer.positions != Positions::Grid) reader.fail("positions", "of a slide encoder are grid");
  read_head(reader, config.head, {HeadType::None, HeadType::Classification, HeadType::Regression});
  if (config.head.labels() && !config.head.pools()) reader.fail("head", "of a slide encoder labels sequences");
  reader.finish();
  return config;
}

nlohmann::ordered_json to_json(SlideEncoderConfig config) {
  ConfigWriter writer;
  writer("type", std::string("slide_encoder"));
  describe(writer, config);
  write_transformer(writer, config.transformer);
  writer.json["head"] = to_json(config.head);
  return writer.json;
}

std::vector<Field> fields_of(const SlideEncoderConfig& config) {
  std::vector<Field> fields{{.name = "tiles", .kind = Field::Kind::Frames, .size = config.channels},
                            {.name = "coords", .kind = Field::Kind::Frames, .size = 2}};
  if (config.head.labels()) fields.push_back(config.head.label_field());
  return fields;
}

}  // namespace

SlideEncoder::SlideEncoder(const SlideEncoderConfig& config, SequenceParallel& parallel,
                           const at::TensorOptions& parameter_options, std::uint64_t seed)
    : config_(config), parameters_(parameter_options, seed) {
  constexpr double epsilon = 1e-6;
  const std::int64_t width = config.transformer.width;
  patch_embed_ = std::make_unique<Linear>(parameters_, "patch_embed.proj", config.channels, width);
  stack_ = std::make_unique<EncoderStack>(parameters_, stack_of(config), parallel, "encoder.");
  norm_ = std::make_unique<LayerNorm>(parameters_, "norm", width, epsilon);
  if (config.head.labels()) head_ = std::make_unique<LabelHead>(parameters_, "head", width, config.head);
  parameters_.flatten();
}

SlideEmbedding SlideEncoder::embed(const Batch& batch, const Pass& pass) const {
  const auto x = stack_->enter((*patch_embed_)(batch.at("tiles").to(pass.dtype)), batch);
  const auto pooled = [&](const at::Tensor& rows) { return (*norm_)(stack_->pooled(rows, config_.pooling, batch)); };
  std::vector<at::Tensor> all;  // pooled at once, so that no layer's activations are kept for it
  const auto last = (*stack_)(x, batch, pass, [&](const at::Tensor& rows) { all.push_back(pooled(rows)); });
  return {at::stack(all, 1), pooled(last)};
}

LossSum SlideEncoder::loss(const Batch& batch, const Pass& pass) {
  return head_->loss(embed(batch, pass).last.to(pass.dtype), batch);
}

std::map<std::string, at::Tensor> SlideEncoder::outputs(const Batch& batch, const Pass& pass) {
  const auto [all, last] = embed(batch, pass);
  if (!head_) return {{"all", all}, {"last", last}};
  return {{"all", all}, {"last", last}, {"prediction", (*head_)(last.to(pass.dtype))}};
}

ModelSpecification specify_slide_encoder(ConfigReader reader) {
  const SlideEncoderConfig config = read(reader);
  return {.json = to_json(config),
          .fields = fields_of(config),
          .prefix = stack_of(config).prefix(),
          .trainable = config.head.labels(),
          .equal_lengths = config.transformer.compatibility == Compatibility::Torchscale,
          .metrics = config.head.metrics(),
          .warning =
              [config](std::int64_t length) {
                return coverage_warning(config.transformer, length + stack_of(config).prefix());
              },
          .build = [config](
                       SequenceParallel& parallel, const at::TensorOptions& options,
                       std::uint64_t seed) { return std::make_unique<SlideEncoder>(config, parallel, options, seed); }};
}

}  // namespace longnet
