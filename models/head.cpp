#include "models/head.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/configuration/limits.h"

namespace longnet {

using Type = HeadConfig::Type;
using Scope = HeadConfig::Scope;

template <>
struct ConfigNames<Type> {
  static constexpr std::array<std::pair<const char*, Type>, 5> names{{{"none", Type::None},
                                                                      {"masked_tokens", Type::MaskedTokens},
                                                                      {"classification", Type::Classification},
                                                                      {"regression", Type::Regression},
                                                                      {"forecast", Type::Forecast}}};
};

template <>
struct ConfigNames<Scope> {
  static constexpr std::array<std::pair<const char*, Scope>, 2> names{
      {{"sequence", Scope::Sequence}, {"position", Scope::Position}}};
};

namespace {

/// The keys that a type has.
template <typename Fields>
void describe(Fields& field, HeadConfig& config) {
  field("type", config.type);
  if (config.type == Type::Classification) field("classes", config.classes, between(2, limits::tokens));
  if (config.type == Type::Regression) field("outputs", config.outputs, between(1, limits::width));
  if (config.type == Type::MaskedTokens) field("fraction", config.fraction, from_zero_to_below(1));
  if (config.type == Type::Forecast) field("forecast", config.forecast);
  if (!config.labels()) return;
  field("per", config.per);
  field("field", config.field);
  if (config.pools()) field("pooling", config.pooling);
}

}  // namespace

Field HeadConfig::label_field() const {
  const bool classifies = type == Type::Classification;
  return {.name = field,
          .kind = classifies ? Field::Kind::Tokens : Field::Kind::Frames,
          .size = size(),
          .per_sequence = per == Scope::Sequence,
          .size_key = classifies ? "model.head.classes" : "model.head.outputs"};
}

std::vector<std::string> HeadConfig::metrics() const {
  if (type == Type::Classification) return {"accuracy"};
  if (type == Type::Regression) return {"absolute_error"};
  return {};
}

void read_head(ConfigReader& reader, HeadConfig& config, const std::vector<Type>& accepted) {
  auto section = reader.section("head");
  describe(section, config);
  if (section.complete() && std::find(accepted.begin(), accepted.end(), config.type) == accepted.end()) {
    std::string names;
    for (const Type type : accepted) names += (names.empty() ? "" : ", ") + config_name(type);
    section.fail("type", "is " + config_name(config.type) + ", but this model's head must be one of " + names);
  }
  if (config.type == Type::Classification) section.require("classes");
  section.finish();
}

nlohmann::ordered_json to_json(const HeadConfig& config) {
  ConfigWriter writer;
  HeadConfig described = config;
  describe(writer, described);
  return writer.json;
}

LabelHead::LabelHead(ParameterSet& parameters, const std::string& name, std::int64_t width, const HeadConfig& config)
    : config_(config), projection_(parameters, name, width, config.size()) {}

LossSum LabelHead::loss(const at::Tensor& features, const Batch& batch) const {
  const auto predicted = projection_(features).to(at::kDouble);  // (..., classes or outputs)
  const auto& labels = batch.at(config_.field);
  at::Tensor loss, metric;  // one a label
  if (config_.type == Type::Classification) {
    const auto classes = labels.reshape(predicted.sizes().slice(0, predicted.dim() - 1));
    loss = predicted.logsumexp(-1) - predicted.gather(-1, classes.unsqueeze(-1)).squeeze(-1);
    metric = predicted.argmax(-1).eq(classes);
  } else {
    const auto error = predicted - labels.reshape(predicted.sizes());
    loss = error.square().mean(-1);
    metric = error.detach().abs().mean(-1);
  }
  auto counts = at::ones_like(loss);
  if (config_.pools()) {
    counts.fill_(batch.shard.is_first() ? 1 : 0);
  } else if (const auto mask = batch.own_mask(loss.size(1), loss.device())) {
    counts = mask->to(at::kDouble);
  }
  return {(loss * counts).sum(), counts.sum().to(at::kLong), (metric * counts).sum().reshape({1})};
}

}  // namespace longnet
