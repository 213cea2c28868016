#include "models/longnet_layer.h"

#include <ATen/ATen.h>

#include <cmath>

namespace longnet {
namespace {

/// The dropouts of a layer.
enum Site : std::int64_t { AfterAttention, AfterGelu, AfterFeedForward };

at::Tensor drop(const at::Tensor& x, double rate, const DropoutSite* where, Site site) {
  if (where == nullptr) return x;
  DropoutSite here = *where;
  here.site = site;
  return dropout(x, rate, here);
}

double sub_ln_gain(std::int64_t layers) {
  return std::sqrt(std::log(2.0 * static_cast<double>(layers)));
}

}  // namespace

LongNetLayer::LongNetLayer(ParameterSet& parameters, const std::string& name, const LayerSettings& settings)
    : settings_(settings),
      self_attn_layer_norm_(parameters, name + ".self_attn_layer_norm", settings.width),
      q_proj_(parameters, name + ".self_attn.q_proj", settings.width, settings.width),
      k_proj_(parameters, name + ".self_attn.k_proj", settings.width, settings.width),
      v_proj_(parameters, name + ".self_attn.v_proj", settings.width, settings.width, sub_ln_gain(settings.layers)),
      inner_attn_ln_(parameters, name + ".self_attn.inner_attn_ln", settings.width),
      out_proj_(parameters, name + ".self_attn.out_proj", settings.width, settings.width, sub_ln_gain(settings.layers)),
      final_layer_norm_(parameters, name + ".final_layer_norm", settings.width),
      fc1_(parameters, name + ".ffn.fc1", settings.width, settings.feed_forward, sub_ln_gain(settings.layers)),
      ffn_layernorm_(parameters, name + ".ffn.ffn_layernorm", settings.feed_forward),
      fc2_(parameters, name + ".ffn.fc2", settings.feed_forward, settings.width, sub_ln_gain(settings.layers)) {}

at::Tensor LongNetLayer::operator()(const at::Tensor& x, const LayerAttention& attention,
                                    const DropoutSite* site) const {
  const auto heads = [&](const at::Tensor& projected) { return projected.unflatten(-1, {settings_.heads, -1}); };
  const auto a = self_attn_layer_norm_(x);
  const auto mixed = attention(heads(q_proj_(a)), heads(k_proj_(a)), heads(v_proj_(a))).flatten(-2);
  const auto y = x + drop(out_proj_(inner_attn_ln_(mixed)), settings_.dropout, site, AfterAttention);

  const auto hidden = drop(at::gelu(fc1_(final_layer_norm_(y))), settings_.dropout, site, AfterGelu);
  return y + drop(fc2_(ffn_layernorm_(hidden)), settings_.dropout, site, AfterFeedForward);
}

}  // namespace longnet
