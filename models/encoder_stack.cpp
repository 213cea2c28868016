#include "models/encoder_stack.h"

#include <ATen/ATen.h>

#include "core/layers/position_encoding.h"
#include "models/class_token.h"

namespace longnet {
namespace {

at::Tensor class_token(ParameterSet& parameters, const EncoderStackConfig& config) {
  if (!config.class_token) return {};
  return parameters.add("cls_token", {1, 1, config.transformer.width}, normal(0.02));
}

}  // namespace

EncoderStack::EncoderStack(ParameterSet& parameters, const EncoderStackConfig& config, SequenceParallel& parallel,
                           const std::string& prefix)
    : config_(config),
      parallel_(parallel),
      cls_token_(class_token(parameters, config)),
      transformer_(parameters, config.transformer, parallel, /*causal=*/false, prefix) {}

at::Tensor EncoderStack::enter(const at::Tensor& x, const Batch& batch) const {
  auto rows = x;
  if (config_.transformer.positions == Positions::Grid) {
    const auto cells = grid_encoding(batch.at(config_.coordinates), config_.cell, config_.transformer.width);
    rows = rows + cells.to(rows.scalar_type());
  }
  return config_.class_token ? with_class_token(rows, cls_token_, batch.shard) : rows;
}

at::Tensor EncoderStack::of_data(const at::Tensor& rows, const Batch& batch) const {
  return config_.class_token ? without_class_token(rows, batch.shard) : rows;
}

at::Tensor EncoderStack::pooled(const at::Tensor& rows, Pooling pooling, const Batch& batch) const {
  return pool(rows, pooling, config_.prefix(), batch, parallel_);
}

}  // namespace longnet
