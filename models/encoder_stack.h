#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "models/model.h"
#include "models/pooling.h"
#include "models/transformer.h"

/// What the encoders of tokens, frames and slides have in common.
namespace longnet {

struct EncoderStackConfig {
  TransformerConfig transformer = {};
  std::string coordinates = {};  ///< field of the grid's coordinates, (rows, 2), where positions are a grid
  double cell = 1;               ///< edge of the grid's cells
  bool class_token = false;      ///< a learned token before the first

  std::int64_t prefix() const { return class_token ? 1 : 0; }
};

/// A bidirectional stack of layers over embedded rows: adds the encoding of a grid and puts a class token in front, and
/// takes both into account where rows leave it.
class EncoderStack {
 public:
  /// Parameters of the layers are named below `prefix`.
  EncoderStack(ParameterSet& parameters, const EncoderStackConfig& config, SequenceParallel& parallel,
               const std::string& prefix = "");

  /// x (B, n, C), embedded, as it enters the first layer: (B, n + prefix, C) on the shard where the sequence begins.
  at::Tensor enter(const at::Tensor& x, const Batch& batch) const;

  /// What enter() gives, through all layers and the last normalization.
  at::Tensor operator()(const at::Tensor& x, const Batch& batch, const Pass& pass,
                        const Transformer::Visitor& visit = {}) const {
    return transformer_(x, batch, pass, visit);
  }

  /// Rows without the class token.
  at::Tensor of_data(const at::Tensor& rows, const Batch& batch) const;

  /// (B, C): see pool. The class token does not count for a mean.
  at::Tensor pooled(const at::Tensor& rows, Pooling pooling, const Batch& batch) const;

 private:
  EncoderStackConfig config_;
  SequenceParallel& parallel_;
  at::Tensor cls_token_;  // (1, 1, C)
  Transformer transformer_;
};

}  // namespace longnet
