#include "models/multimodal.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/configuration/limits.h"
#include "core/error.h"
#include "core/layers/recompute.h"
#include "core/random.h"
#include "core/to_device.h"

namespace longnet {
namespace {

using HeadType = HeadConfig::Type;

template <typename Fields>
void describe(Fields& field, ModalityConfig& config) {
  if (!config.has_frames()) field("vocabulary", config.vocabulary, between(0, limits::tokens));
  if (config.vocabulary == 0) field("channels", config.channels, between(0, limits::width));
  field("stride", config.stride, between(1, limits::stride));
}

template <typename Fields>
void describe_cross(Fields& field, MultimodalConfig& config) {
  field("width", config.cross_width, between(1, limits::width));
  field("heads", config.cross_heads, between(1, limits::width));
}

void read_modalities(ConfigReader& reader, MultimodalConfig& config) {
  reader.require("modalities");
  auto section = reader.section("modalities");
  for (const std::string& name : section.keys()) {
    ModalityConfig modality{.name = name, .attention = config.transformer.attention};
    auto own = section.section(name.c_str());
    describe(own, modality);
    if ((modality.vocabulary > 0) == (modality.channels > 0)) {
      own.fail("channels", "or vocabulary must be given: a modality has frames or tokens");
    }
    if (own.has("attention")) read_attention(own, "attention", modality.attention);
    own.finish();
    config.modalities.push_back(modality);
  }
  if (reader.complete() && config.modalities.empty()) reader.fail("modalities", "names none");
}

void read_cross(ConfigReader& reader, MultimodalConfig& config) {
  config.cross_width = config.transformer.width;
  config.cross_heads = config.transformer.heads;
  config.cross_attention = config.transformer.attention;
  auto section = reader.section("cross");
  describe_cross(section, config);
  if (section.has("attention")) read_attention(section, "attention", config.cross_attention);
  section.finish();
  if (!section.complete()) return;
  const std::int64_t multiple =
      config.cross_heads *
      (config.transformer.positions == Positions::Rope || config.transformer.positions == Positions::Xpos ? 2 : 1);
  if (config.cross_width % multiple != 0) {
    section.fail("width", "is " + std::to_string(config.cross_width) + ", but must be a multiple of " +
                              std::to_string(multiple) + " for its heads and positions");
  }
}

void require_forecast(const ConfigReader& reader, const MultimodalConfig& config) {
  if (config.head.type != HeadType::Forecast) return;
  for (const std::string& name : config.head.forecast) {
    const auto named = [&](const ModalityConfig& modality) { return modality.name == name && modality.has_frames(); };
    if (std::none_of(config.modalities.begin(), config.modalities.end(), named)) {
      reader.fail("head", "forecasts " + name + ", which is no modality of frames");
    }
  }
  const auto forecast = [&](const ModalityConfig& modality) { return config.forecasts(modality); };
  if (std::none_of(config.modalities.begin(), config.modalities.end(), forecast)) {
    reader.fail("head", "forecasts frames, but no modality has any");
  }
}

MultimodalConfig read(ConfigReader& reader) {
  MultimodalConfig config;
  read_transformer(reader, config.transformer);
  if (config.transformer.compatibility != Compatibility::None || config.transformer.positions == Positions::Grid) {
    reader.fail(config.transformer.positions == Positions::Grid ? "positions" : "compatibility",
                "is nothing that a multimodal model has");
  }
  read_modalities(reader, config);
  read_cross(reader, config);
  reader("modality_dropout", config.modality_dropout, from_zero_to_below(1));
  reader.require("head");
  read_head(reader, config.head, {HeadType::Classification, HeadType::Regression, HeadType::Forecast});
  if (config.head.pools() && config.head.pooling == Pooling::ClassToken) {
    reader.fail("head", "pools by a class token, which a multimodal model does not have");
  }
  require_forecast(reader, config);
  reader.finish();
  return config;
}

nlohmann::ordered_json to_json(MultimodalConfig config) {
  ConfigWriter writer;
  writer("type", std::string("multimodal"));
  write_transformer(writer, config.transformer);
  for (ModalityConfig& modality : config.modalities) {
    ConfigWriter own;
    describe(own, modality);
    own.json["attention"] = to_json(modality.attention);
    writer.json["modalities"][modality.name] = own.json;
  }
  ConfigWriter cross;
  describe_cross(cross, config);
  cross.json["attention"] = to_json(config.cross_attention);
  writer.json["cross"] = cross.json;
  writer("modality_dropout", config.modality_dropout);
  writer.json["head"] = to_json(config.head);
  return writer.json;
}

std::vector<Field> fields_of(const MultimodalConfig& config) {
  std::vector<Field> fields;
  fields.reserve(config.modalities.size() + 1);
  for (const ModalityConfig& modality : config.modalities) {
    fields.push_back({.name = modality.name,
                      .kind = modality.has_frames() ? Field::Kind::Frames : Field::Kind::Tokens,
                      .size = modality.has_frames() ? modality.channels : modality.vocabulary,
                      .stride = modality.stride,
                      .next = config.forecasts(modality),
                      .required = false,
                      .size_key = "model.modalities." + modality.name + ".vocabulary"});
  }
  if (config.head.labels()) fields.push_back(config.head.label_field());
  return fields;
}

std::optional<std::string> warning(const MultimodalConfig& config, std::int64_t length) {
  TransformerConfig part = config.transformer;
  for (const ModalityConfig& modality : config.modalities) {
    part.attention = modality.attention;
    if (const auto advice = coverage_warning(part, length)) return modality.name + ": " + *advice;
  }
  part.attention = config.cross_attention;
  part.heads = config.cross_heads;
  if (const auto advice = coverage_warning(part, length)) return "cross: " + *advice;
  return {};
}

/// A number in [0, 1) for a modality of a sample, the same on every rank.
double chance(const Pass& pass, std::int64_t sample, std::size_t what) {
  constexpr std::uint64_t stream = 0x6d6f64616c697479;  // apart from dropout's
  const std::uint64_t bits = hash({stream, pass.seed, static_cast<std::uint64_t>(pass.step),
                                   static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(what)});
  return std::ldexp(static_cast<double>(bits >> 11), -53);
}

/// The values of a field of modality number `index`, for the sequences that have it after modality dropout.
at::Tensor values_of(const std::string& name, std::size_t index, const Batch& batch, const ModalityRows& rows) {
  const FieldBatch& field = batch.fields.at(name);
  const auto& kept = rows.sequences[index];
  if (kept.size() == field.sequences.size()) return field.values;
  std::vector<std::int64_t> taken;
  for (std::size_t row = 0; row < field.sequences.size(); ++row) {
    if (std::binary_search(kept.begin(), kept.end(), field.sequences[row])) {
      taken.push_back(static_cast<std::int64_t>(row));
    }
  }
  return field.values.index_select(0, to_device(at::tensor(taken, at::kLong), field.values.device()));
}

/// (B, n * s, F) to (B, n, s * F).
at::Tensor by_position(const at::Tensor& rows, std::int64_t stride) {
  return rows.unflatten(1, {rows.size(1) / stride, stride}).flatten(2);
}

}  // namespace

bool MultimodalConfig::forecasts(const ModalityConfig& modality) const {
  if (head.type != HeadType::Forecast || !modality.has_frames()) return false;
  return head.forecast.empty() ||
         std::find(head.forecast.begin(), head.forecast.end(), modality.name) != head.forecast.end();
}

Multimodal::Multimodal(const MultimodalConfig& config, SequenceParallel& parallel,
                       const at::TensorOptions& parameter_options, std::uint64_t seed)
    : config_(config), parallel_(parallel), parameters_(parameter_options, seed) {
  const TransformerConfig& stack = config.transformer;
  const std::int64_t width = stack.width, together = width * static_cast<std::int64_t>(config.modalities.size());
  const bool causal = config.head.type == HeadType::Forecast;
  std::vector<std::string> names;
  for (const ModalityConfig& settings : config.modalities) {
    const std::string name = "modalities." + settings.name;
    Modality modality;
    if (!settings.has_frames()) {
      const auto embedding = normal(1 / std::sqrt(static_cast<double>(width)));
      modality.embed_tokens = parameters_.add(name + ".embed_tokens.weight", {settings.vocabulary, width}, embedding);
    }
    const std::int64_t inputs = settings.stride * (settings.has_frames() ? settings.channels : width);
    if (settings.has_frames() || settings.stride > 1) {
      modality.embed = std::make_unique<Linear>(parameters_, name + ".embed", inputs, width);
    }
    modality.attention = parallel.attention(settings.attention.mixture(), stack.heads, causal);
    modality.layer_norm = std::make_unique<LayerNorm>(parameters_, name + ".layer_norm", width);
    modality.missing = parameters_.add(name + ".missing", {width}, normal(1));
    if (config.forecasts(settings)) {
      modality.forecast = std::make_unique<Linear>(parameters_, name + ".forecast", together, inputs);
    }
    modalities_.push_back(std::move(modality));
    names.push_back(settings.name);
  }
  cross_attention_ = parallel.attention(config.cross_attention.mixture(), config.cross_heads, causal);
  const LayerSettings own{width, stack.heads, stack.feed_forward, stack.layers, stack.dropout};
  const LayerSettings cross{config.cross_width, config.cross_heads, 0, stack.layers, stack.dropout};
  for (std::int64_t layer = 0; layer < stack.layers; ++layer) {
    layers_.emplace_back(parameters_, "layers." + std::to_string(layer), names, own, cross);
  }
  if (config.head.labels()) head_ = std::make_unique<LabelHead>(parameters_, "head", together, config.head);
  parameters_.flatten();
}

ModalityRows Multimodal::present(const Batch& batch, const Pass& pass) const {
  std::vector<std::vector<std::size_t>> held(batch.samples.size());  // for each sequence, its modalities
  for (std::size_t modality = 0; modality < modalities_.size(); ++modality) {
    const auto field = batch.fields.find(config_.modalities[modality].name);
    if (field == batch.fields.end()) continue;
    for (const std::int64_t sequence : field->second.sequences) {
      held[static_cast<std::size_t>(sequence)].push_back(modality);
    }
  }
  ModalityRows rows{batch.size(), std::vector<std::vector<std::int64_t>>(modalities_.size())};
  for (std::size_t sequence = 0; sequence < held.size(); ++sequence) {
    const std::int64_t sample = batch.samples[sequence];
    auto& modalities = held[sequence];
    if (modalities.empty()) {
      throw DataError("sequence " + std::to_string(sample) + " of the batch lacks every modality of the model");
    }
    if (pass.training && config_.modality_dropout > 0) {
      const double draw = chance(pass, sample, modalities_.size()) * static_cast<double>(modalities.size());
      const std::size_t kept = modalities[static_cast<std::size_t>(draw)];  // one stays in any case
      std::erase_if(modalities, [&](std::size_t modality) {
        return modality != kept && chance(pass, sample, modality) < config_.modality_dropout;
      });
    }
    for (const std::size_t modality : modalities) {
      rows.sequences[modality].push_back(static_cast<std::int64_t>(sequence));
    }
  }
  return rows;
}

at::Tensor Multimodal::embed(std::size_t index, const at::Tensor& values, at::ScalarType dtype) const {
  const Modality& modality = modalities_[index];
  const std::int64_t stride = config_.modalities[index].stride;
  if (!modality.embed_tokens.defined()) return (*modality.embed)(by_position(values.to(dtype), stride));
  const auto embedded = at::embedding(modality.embed_tokens, values).to(dtype);
  return modality.embed ? (*modality.embed)(by_position(embedded, stride)) : embedded;
}

Multimodal::Placement Multimodal::place(const Batch& batch, const ModalityRows& rows,
                                        const at::TensorOptions& options) const {
  const auto positions = [&](std::int64_t head_width) {
    return QueryKeyPositions(config_.transformer.positions, batch.shard.own, batch.shard.length, head_width, options);
  };
  Placement placement{positions(config_.transformer.head_width()), positions(config_.cross_width / config_.cross_heads),
                      std::vector<std::optional<at::Tensor>>(modalities_.size()), batch.key_mask(options.device())};
  if (!placement.cross_mask) return placement;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    placement.own_masks[index] = rows.select(*placement.cross_mask, index);
  }
  return placement;
}

MultimodalAttention Multimodal::attention(const std::string& layer, const Batch& batch, const Placement& placement,
                                          const Pass& pass) const {
  const auto placed = [&](const std::string& name, SequenceAttention& attention, const QueryKeyPositions& positions,
                          const std::optional<at::Tensor>& mask) {
    return [name, &attention, positions, mask, shard = batch.shard, observe = pass.observe](
               const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      const auto placed_q = positions.query(q), placed_k = positions.key(k);
      if (observe) observe({name, attention, placed_q, placed_k, shard, mask});
      return attention(placed_q, placed_k, v, shard, mask).out;
    };
  };
  MultimodalAttention result;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    result.own.emplace_back(placed(layer + ".modalities." + config_.modalities[index].name + ".self_attn",
                                   *modalities_[index].attention, placement.own, placement.own_masks[index]));
  }
  result.cross = placed(layer + ".cross", *cross_attention_, placement.cross, placement.cross_mask);
  return result;
}

MultimodalSites Multimodal::sites(std::size_t layer, const Batch& batch, const ModalityRows& rows,
                                  const Pass& pass) const {
  if (!pass.training) return {};
  const std::size_t parts = modalities_.size() + 1;
  const auto site = [&](std::size_t part, const std::vector<std::int64_t>& samples) {
    return DropoutSite{
        pass.seed, pass.step, samples, batch.shard.own.begin, static_cast<std::int64_t>(layer * parts + part), 0};
  };
  MultimodalSites sites;
  for (std::size_t modality = 0; modality < modalities_.size(); ++modality) {
    std::vector<std::int64_t> samples;
    for (const std::int64_t sequence : rows.sequences[modality]) {
      samples.push_back(batch.samples[static_cast<std::size_t>(sequence)]);
    }
    sites.own.push_back(site(modality, samples));
  }
  sites.cross = {site(modalities_.size(), batch.samples)};
  return sites;
}

at::Tensor Multimodal::features(const Batch& batch, const ModalityRows& rows, const Pass& pass) const {
  std::vector<at::Tensor> embedded;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    if (rows.count(index) == 0) continue;
    embedded.push_back(embed(index, values_of(config_.modalities[index].name, index, batch, rows), pass.dtype));
  }
  auto x = add_positions(at::cat(embedded), config_.transformer.positions, batch.shard.own);
  const Placement placement = place(batch, rows, x.options());
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    const auto attends = attention("layers." + std::to_string(index), batch, placement, pass);
    const auto run = [&layer = layers_[index], rows, attends, sites = sites(index, batch, rows, pass)](
                         const at::Tensor& input) { return layer(input, rows, attends, sites); };
    x = pass.recompute ? recompute(run, x) : run(x);
  }
  std::vector<at::Tensor> normalized, missing;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    normalized.push_back((*modalities_[index].layer_norm)(rows.of(x, index)));
    missing.push_back(modalities_[index].missing);
  }
  return rows.concatenate(normalized, missing);
}

LossSum Multimodal::forecast_loss(const at::Tensor& features, const Batch& batch, const ModalityRows& rows) const {
  auto sum = at::zeros({}, features.options().dtype(at::kDouble)), persistence = sum.clone();
  std::int64_t count = 0;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    const ModalityConfig& modality = config_.modalities[index];
    if (!modalities_[index].forecast || rows.count(index) == 0) continue;
    const auto now = values_of(modality.name, index, batch, rows);
    const auto next = values_of(modality.name + ".next", index, batch, rows);
    const auto change = by_position((next - now).to(at::kDouble), modality.stride);
    const auto predicted = (*modalities_[index].forecast)(rows.select(features, index)).to(at::kDouble);
    sum = sum + (predicted - change).square().mean(-1).sum();
    persistence += change.square().mean(-1).sum();
    count += change.size(0) * change.size(1);
  }
  // Where nothing is forecast here the loss still depends on the features: other ranks wait for this one's gradients.
  return {sum + features.sum().to(at::kDouble) * 0, at::full({}, count, sum.options().dtype(at::kLong)),
          persistence.reshape({1})};
}

at::Tensor Multimodal::pooled(const at::Tensor& features, const Batch& batch) const {
  return pool(features, Pooling::Mean, 0, batch, parallel_).to(features.scalar_type());
}

LossSum Multimodal::loss(const Batch& batch, const Pass& pass) {
  const ModalityRows rows = present(batch, pass);
  const auto x = features(batch, rows, pass);
  if (config_.head.type == HeadType::Forecast) return forecast_loss(x, batch, rows);
  return head_->loss(config_.head.pools() ? pooled(x, batch) : x, batch);
}

std::map<std::string, at::Tensor> Multimodal::outputs(const Batch& batch, const Pass& pass) {
  const auto embedding = pooled(features(batch, present(batch, pass), pass), batch);
  if (!config_.head.pools()) return {{"embedding", embedding}};
  return {{"embedding", embedding}, {"prediction", (*head_)(embedding)}};
}

ModelSpecification specify_multimodal(ConfigReader reader) {
  const MultimodalConfig config = read(reader);
  const bool forecast = config.head.type == HeadType::Forecast;
  return {
      .json = to_json(config),
      .fields = fields_of(config),
      .metrics = forecast ? std::vector<std::string>{"persistence"} : config.head.metrics(),
      .warning = [config](std::int64_t length) { return warning(config, length); },
      .build = [config](SequenceParallel& parallel, const at::TensorOptions& options,
                        std::uint64_t seed) { return std::make_unique<Multimodal>(config, parallel, options, seed); }};
}

}  // namespace longnet
