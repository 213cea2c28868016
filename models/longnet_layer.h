#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "core/layers/dropout.h"
#include "core/layers/linear.h"
#include "core/layers/parameters.h"

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

/// One layer of LongNet: pre-norm with sub-LN (MAGNETO, arXiv 2210.06423)
///
///     x = x + out_proj(inner_attn_ln(attention(self_attn_layer_norm(x))))
///     x = x + fc2(ffn_layernorm(GELU(fc1(final_layer_norm(x)))))
///
/// Parameters have torchscale's names below `name`, and its initialization: v_proj, out_proj, fc1 and fc2 are scaled by
/// sqrt(ln(2 layers)).
class LongNetLayer {
 public:
  LongNetLayer(ParameterSet& parameters, const std::string& name, const LayerSettings& settings);

  /// x (B, n, C). `site` says where in the run this is; its field `site` is set here. Null: no dropout.
  at::Tensor operator()(const at::Tensor& x, const LayerAttention& attention, const DropoutSite* site) const;

 private:
  LayerSettings settings_;
  LayerNorm self_attn_layer_norm_;
  Linear q_proj_, k_proj_, v_proj_;
  LayerNorm inner_attn_ln_;
  Linear out_proj_;
  LayerNorm final_layer_norm_;
  Linear fc1_;
  LayerNorm ffn_layernorm_;
  Linear fc2_;
};

}  // namespace longnet
