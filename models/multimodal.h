#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/configuration/config_section.h"
#include "models/head.h"
#include "models/model.h"
#include "models/multimodal_layer.h"
#include "models/transformer.h"

namespace longnet {

/// One of the things that are observed along the sequence. Its name is its field in the data.
struct ModalityConfig {
  std::string name;
  std::int64_t vocabulary = 0;  ///< of tokens
  std::int64_t channels = 0;    ///< of frames; exactly one of the two is not 0
  std::int64_t stride = 1;      ///< rows of the field that make up one position
  AttentionConfig attention;

  bool has_frames() const { return channels > 0; }
};

struct MultimodalConfig {
  TransformerConfig transformer;  ///< of each modality; its attention is that of modalities that name none
  std::vector<ModalityConfig> modalities;
  std::int64_t cross_width = 0;
  std::int64_t cross_heads = 0;
  AttentionConfig cross_attention;
  double modality_dropout = 0;  ///< probability that a modality is taken as missing, in training
  HeadConfig head;

  bool forecasts(const ModalityConfig& modality) const;
};

/// Several modalities along one sequence, each with an embedding and dilated attention of its own, that meet in a
/// further dilated attention over their concatenation: see multimodal_layer.h. A modality may be missing anywhere.
/// A forecast is causal; all else is bidirectional.
class Multimodal : public Model {
 public:
  Multimodal(const MultimodalConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
             std::uint64_t seed);

  ParameterSet& parameters() override { return parameters_; }
  /// A forecast is the last frames and the change that the model predicts; its error counts for each modality that a
  /// sequence has, and `persistence` is the error of predicting no change.
  LossSum loss(const Batch& batch, const Pass& pass) override;
  /// `embedding` (B, M * C): the pooled sequence; `prediction` where the head is one for sequences.
  std::map<std::string, at::Tensor> outputs(const Batch& batch, const Pass& pass) override;

 private:
  struct Modality {
    at::Tensor embed_tokens;        // (V, C)
    std::unique_ptr<Linear> embed;  // of a position's frames, or of several tokens
    std::unique_ptr<SequenceAttention> attention;
    std::unique_ptr<LayerNorm> layer_norm;  // after the last layer
    at::Tensor missing;                     // (C), in its place
    std::unique_ptr<Linear> forecast;       // M * C to a position's frames
  };

  /// Who has what, after modality dropout. Throws DataError for a sequence that has nothing.
  ModalityRows present(const Batch& batch, const Pass& pass) const;
  at::Tensor embed(std::size_t modality, const at::Tensor& values, at::ScalarType dtype) const;
  /// Where a batch's queries and keys lie, the same for all layers.
  struct Placement {
    QueryKeyPositions own, cross;
    std::vector<std::optional<at::Tensor>> own_masks;  ///< (rows of the modality, N), one a modality
    std::optional<at::Tensor> cross_mask;              ///< (B, N)
  };
  Placement place(const Batch& batch, const ModalityRows& rows, const at::TensorOptions& options) const;
  MultimodalAttention attention(const std::string& layer, const Batch& batch, const Placement& placement,
                                const Pass& pass) const;
  MultimodalSites sites(std::size_t layer, const Batch& batch, const ModalityRows& rows, const Pass& pass) const;
  /// (B, n, M * C), after the last normalizations.
  at::Tensor features(const Batch& batch, const ModalityRows& rows, const Pass& pass) const;
  LossSum forecast_loss(const at::Tensor& features, const Batch& batch, const ModalityRows& rows) const;
  at::Tensor pooled(const at::Tensor& features, const Batch& batch) const;

  MultimodalConfig config_;
  SequenceParallel& parallel_;
  ParameterSet parameters_;
  std::vector<Modality> modalities_;
  std::unique_ptr<SequenceAttention> cross_attention_;
  std::vector<MultimodalLayer> layers_;
  std::unique_ptr<LabelHead> head_;
};

ModelSpecification specify_multimodal(ConfigReader reader);

}  // namespace longnet
