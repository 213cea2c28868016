#pragma once

#include <cstdint>
#include <memory>

#include "core/configuration/config_section.h"
#include "models/encoder_stack.h"
#include "models/head.h"
#include "models/model.h"

namespace longnet {

struct SlideEncoderConfig {
  std::int64_t channels = 0;  ///< of a tile's embedding
  std::int64_t cell = 256;    ///< edge of a tile, in the coordinates' pixels
  TransformerConfig transformer = {};
  Pooling pooling = Pooling::ClassToken;
  HeadConfig head = {};
};

/// What the slide encoder makes of each slide, right on every shard of it.
struct SlideEmbedding {
  at::Tensor all;   ///< (B, layers + 1, C): pooled before the first layer and after each
  at::Tensor last;  ///< (B, C): pooled after the last normalization of the stack
};

/// GigaPath's slide encoder (Prov-GigaPath, Nature 630, 2024): embeddings of a slide's tiles and their coordinates in,
/// an embedding of the slide out. Parameters have the names of the published checkpoint.
class SlideEncoder : public Model {
 public:
  SlideEncoder(const SlideEncoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
               std::uint64_t seed);

  ParameterSet& parameters() override { return parameters_; }
  /// Of the head over `last`.
  LossSum loss(const Batch& batch, const Pass& pass) override;
  /// `all` and `last`; `prediction` where there is a head.
  std::map<std::string, at::Tensor> outputs(const Batch& batch, const Pass& pass) override;

  /// Reads the fields `tiles` (B, n, channels) and `coords` (B, n, 2). Differentiable; collective.
  SlideEmbedding embed(const Batch& batch, const Pass& pass) const;

 private:
  SlideEncoderConfig config_;
  ParameterSet parameters_;
  at::Tensor cls_token_;  // (1, 1, C)
  std::unique_ptr<Linear> patch_embed_;
  std::unique_ptr<EncoderStack> stack_;
  std::unique_ptr<LayerNorm> norm_;
  std::unique_ptr<LabelHead> head_;
};

ModelSpecification specify_slide_encoder(ConfigReader reader);

}  // namespace longnet
