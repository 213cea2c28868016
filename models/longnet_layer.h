#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "core/layers/dropout.h"
#include "core/layers/linear.h"
#include "core/layers/parameters.h"

/// The parts of a LongNet layer: pre-norm with sub-LN (MAGNETO, arXiv 2210.06423)
///
///     x = x + out_proj(inner_attn_ln(attention(self_attn_layer_norm(x))))
///     x = x + fc2(ffn_layernorm(GELU(fc1(final_layer_norm(x)))))
///
/// Parameters have torchscale's names below `name`, and its initialization: v_proj, out_proj, fc1 and fc2 are scaled by
/// sqrt(ln(2 layers)). `site` says where in the run a call is; its field `site` is set here. Null: no dropout.
namespace longnet {

struct LayerSettings {
  std::int64_t width;         ///< C
  std::int64_t heads;         ///< H
  std::int64_t feed_forward;  ///< F
  std::int64_t layers;        ///< of the whole stack: sets the initialization
  double dropout;
};

/// Attention inside a layer: q, k, v (B, n, H, D) to (B, n, H, D), positions included.
using LayerAttention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

/// out_proj(inner_attn_ln(attention(x))): attention between projections.
class ProjectedAttention {
 public:
  /// From `inputs` channels through settings.width and back to `outputs`.
  ProjectedAttention(ParameterSet& parameters, const std::string& name, const LayerSettings& settings,
                     std::int64_t inputs, std::int64_t outputs);

  /// x (B, n, inputs) to (B, n, outputs).
  at::Tensor operator()(const at::Tensor& x, const LayerAttention& attention, const DropoutSite* site) const;

 private:
  std::int64_t heads_;
  double dropout_;
  Linear q_proj_, k_proj_, v_proj_;
  LayerNorm inner_attn_ln_;
  Linear out_proj_;
};

class FeedForward {
 public:
  FeedForward(ParameterSet& parameters, const std::string& name, const LayerSettings& settings);

  /// x (B, n, C): what is to be added to it.
  at::Tensor operator()(const at::Tensor& x, const DropoutSite* site) const;

 private:
  double dropout_;
  LayerNorm final_layer_norm_;
  Linear fc1_;
  LayerNorm ffn_layernorm_;
  Linear fc2_;
};

/// One layer of LongNet.
class LongNetLayer {
 public:
  LongNetLayer(ParameterSet& parameters, const std::string& name, const LayerSettings& settings);

  /// x (B, n, C) to the same.
  at::Tensor operator()(const at::Tensor& x, const LayerAttention& attention, const DropoutSite* site) const;

 private:
  LayerNorm self_attn_layer_norm_;
  ProjectedAttention self_attn_;
  FeedForward feed_forward_;
};

}  // namespace longnet
