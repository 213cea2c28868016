#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/attention/row_cache.h"
#include "core/configuration/config_section.h"
#include "core/layers/linear_cross_entropy.h"
#include "models/model.h"
#include "models/transformer.h"

namespace longnet {

struct DecoderConfig {
  std::int64_t vocabulary = 0;
  TransformerConfig transformer;
  bool tied_embeddings = false;
};

/// A causal LongNet language model: token embedding, layers, a last normalization, and a projection to the vocabulary.
class Decoder : public Model {
 public:
  Decoder(const DecoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
          std::uint64_t seed);

  ParameterSet& parameters() override { return parameters_; }
  LossSum loss(const Batch& batch, const Pass& pass) override;

  /// Activations of the batch's tokens after the last normalization: (B, n, C).
  at::Tensor hidden(const Batch& batch, const Pass& pass);

  /// (..., C) to (..., V).
  at::Tensor logits(const at::Tensor& hidden) const;

  const DecoderConfig& config() const { return config_; }

 private:
  friend class DecoderSession;

  at::Tensor embed(const at::Tensor& tokens, at::ScalarType dtype) const;  ///< (B, n) to (B, n, C)
  const at::Tensor& output_weight() const { return config_.tied_embeddings ? embed_tokens_ : output_projection_; }

  DecoderConfig config_;
  ParameterSet parameters_;
  at::Tensor embed_tokens_;  // (V, C)
  std::unique_ptr<Transformer> transformer_;
  at::Tensor output_projection_;  // (V, C); undefined when tied
};

/// A sequence that grows by one token at a time, on one rank. Keeps only the keys and values that later tokens can
/// reach.
class DecoderSession {
 public:
  DecoderSession(Decoder& decoder, at::ScalarType dtype);

  /// Takes in the first tokens (n), n >= 1, at once; returns the logits (V) after the last. Only at the beginning.
  at::Tensor begin(const at::Tensor& tokens);

  /// Takes in one more token; returns the logits (V) after it.
  at::Tensor next(std::int64_t token);

 private:
  at::Tensor run(const at::Tensor& tokens, Range positions, const Transformer::AttendInLayer& attend) const;

  Decoder& decoder_;
  Pass pass_;
  std::vector<RowCache> caches_;  ///< one a layer
};

ModelSpecification specify_decoder(ConfigReader reader);

}  // namespace longnet
