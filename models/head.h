#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/configuration/config_section.h"
#include "core/layers/linear.h"
#include "models/model.h"
#include "models/pooling.h"

namespace longnet {

/// The section `head` of a model that labels sequences or positions.
struct HeadConfig {
  enum class Type { None, MaskedTokens, Classification, Regression, Forecast };
  enum class Scope { Sequence, Position };

  Type type = Type::None;
  std::int64_t classes = 0;             ///< of a classification
  std::int64_t outputs = 1;             ///< of a regression: numbers a label
  Scope per = Scope::Sequence;          ///< what has a label
  std::string field = "label";          ///< of the data, with the labels
  Pooling pooling = Pooling::Mean;      ///< for a label of the sequence
  double fraction = 0.15;               ///< of masked tokens
  std::vector<std::string> forecast{};  ///< which modalities are forecast; none: all

  bool labels() const { return type == Type::Classification || type == Type::Regression; }
  bool pools() const { return labels() && per == Scope::Sequence; }
  std::int64_t size() const { return type == Type::Classification ? classes : outputs; }
  /// The field with the labels.
  Field label_field() const;
  /// Of the loss of LabelHead.
  std::vector<std::string> metrics() const;
};

/// Reads the section; its type must be one of `accepted`.
void read_head(ConfigReader& reader, HeadConfig& config, const std::vector<HeadConfig::Type>& accepted);
nlohmann::ordered_json to_json(const HeadConfig& config);

/// A linear layer to the labels of a classification or regression, and its loss: cross-entropy, or squared error (mean
/// over the numbers of a label).
class LabelHead {
 public:
  LabelHead(ParameterSet& parameters, const std::string& name, std::int64_t width, const HeadConfig& config);

  /// (..., C) to (..., classes or outputs).
  at::Tensor operator()(const at::Tensor& features) const { return projection_(features); }

  /// `features`: (B, C) of whole sequences, the same on all shards, counted on the first; or (B, n, C) of positions
  /// that `batch` has labels for.
  LossSum loss(const at::Tensor& features, const Batch& batch) const;

 private:
  HeadConfig config_;
  Linear projection_;
};

}  // namespace longnet
