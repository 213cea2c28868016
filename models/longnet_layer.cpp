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

double sub_ln_gain(const LayerSettings& settings) {
  return std::sqrt(std::log(2.0 * static_cast<double>(settings.layers)));
}

}  // namespace

ProjectedAttention::ProjectedAttention(ParameterSet& parameters, const std::string& name, const LayerSettings& settings,
                                       std::int64_t inputs, std::int64_t outputs)
    : heads_(settings.heads),
      dropout_(settings.dropout),
      q_proj_(parameters, name + ".q_proj", inputs, settings.width),
      k_proj_(parameters, name + ".k_proj", inputs, settings.width),
      v_proj_(parameters, name + ".v_proj", inputs, settings.width, sub_ln_gain(settings)),
      inner_attn_ln_(parameters, name + ".inner_attn_ln", settings.width),
      out_proj_(parameters, name + ".out_proj", settings.width, outputs, sub_ln_gain(settings)) {}

at::Tensor ProjectedAttention::operator()(const at::Tensor& x, const LayerAttention& attention,
                                          const DropoutSite* site) const {
  const auto heads = [&](const at::Tensor& projected) { return projected.unflatten(-1, {heads_, -1}); };
  const auto mixed = attention(heads(q_proj_(x)), heads(k_proj_(x)), heads(v_proj_(x))).flatten(-2);
  return drop(out_proj_(inner_attn_ln_(mixed)), dropout_, site, AfterAttention);
}

FeedForward::FeedForward(ParameterSet& parameters, const std::string& name, const LayerSettings& settings)
    : dropout_(settings.dropout),
      final_layer_norm_(parameters, name + ".final_layer_norm", settings.width),
      fc1_(parameters, name + ".ffn.fc1", settings.width, settings.feed_forward, sub_ln_gain(settings)),
      ffn_layernorm_(parameters, name + ".ffn.ffn_layernorm", settings.feed_forward),
      fc2_(parameters, name + ".ffn.fc2", settings.feed_forward, settings.width, sub_ln_gain(settings)) {}

at::Tensor FeedForward::operator()(const at::Tensor& x, const DropoutSite* site) const {
  const auto hidden = drop(at::gelu(fc1_(final_layer_norm_(x))), dropout_, site, AfterGelu);
  return drop(fc2_(ffn_layernorm_(hidden)), dropout_, site, AfterFeedForward);
}

LongNetLayer::LongNetLayer(ParameterSet& parameters, const std::string& name, const LayerSettings& settings)
    : self_attn_layer_norm_(parameters, name + ".self_attn_layer_norm", settings.width),
      self_attn_(parameters, name + ".self_attn", settings, settings.width, settings.width),
      feed_forward_(parameters, name, settings) {}

at::Tensor LongNetLayer::operator()(const at::Tensor& x, const LayerAttention& attention,
                                    const DropoutSite* site) const {
  const auto y = x + self_attn_(self_attn_layer_norm_(x), attention, site);
  return y + feed_forward_(y, site);
}

}  // namespace longnet
