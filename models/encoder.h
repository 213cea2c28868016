#pragma once

#include <cstdint>
#include <memory>

#include "core/configuration/config_section.h"
#include "models/encoder_stack.h"
#include "models/head.h"
#include "models/model.h"

namespace longnet {

struct EncoderConfig {
  std::int64_t vocabulary = 0;  ///< of token input; where tokens are masked, the token that masks is one more
  std::int64_t channels = 0;    ///< of real-valued input; exactly one of the two is not 0
  bool embed_frames = true;     ///< else frames of the model's width enter as they are
  std::string field = {};       ///< of the data
  EncoderStackConfig stack = {.coordinates = "coords"};
  HeadConfig head = {};
};

/// A bidirectional LongNet encoder of tokens or frames: it guesses masked tokens, or labels sequences or positions.
class Encoder : public Model {
 public:
  Encoder(const EncoderConfig& config, SequenceParallel& parallel, const at::TensorOptions& parameter_options,
          std::uint64_t seed);

  ParameterSet& parameters() override { return parameters_; }
  LossSum loss(const Batch& batch, const Pass& pass) override;
  /// `embedding` (B, C): the pooled sequence; `prediction` where the head is one for sequences.
  std::map<std::string, at::Tensor> outputs(const Batch& batch, const Pass& pass) override;

  /// (B, n, C): the input's tokens or frames as they enter the first layer, the class token included.
  at::Tensor embed(const at::Tensor& input, const Batch& batch, at::ScalarType dtype) const;

  /// Activations of `x`, what embed gives, after the last normalization: (B, n, C).
  at::Tensor hidden(const at::Tensor& x, const Batch& batch, const Pass& pass) const;

 private:
  LossSum guess_masked_tokens(const Batch& batch, const Pass& pass) const;
  at::Tensor pooled(const at::Tensor& hidden, const Batch& batch) const;

  EncoderConfig config_;
  ParameterSet parameters_;
  at::Tensor embed_tokens_;               // (V, C), or (V + 1, C)
  std::unique_ptr<Linear> embed_frames_;  // F to C
  std::unique_ptr<EncoderStack> stack_;
  at::Tensor output_projection_;  // (V, C)
  std::unique_ptr<LabelHead> head_;
};

ModelSpecification specify_encoder(ConfigReader reader);

}  // namespace longnet
