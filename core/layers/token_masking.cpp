#include "core/layers/token_masking.h"

#include <ATen/ATen.h>

#include "core/layers/linear_cross_entropy.h"

namespace longnet {

MaskedTokens mask_tokens(const at::Tensor& tokens, double fraction, std::int64_t vocabulary, DropoutSite site) {
  site.site = 0;
  const auto flip = [&](double probability, std::int64_t coins) {  // (B, n, coins): true with that probability
    const auto ones = at::ones({tokens.size(0), tokens.size(1), coins}, tokens.options().dtype(at::kFloat));
    auto heads = dropout(ones, probability, site).eq(0);
    ++site.site;
    return heads;
  };
  const auto chosen = flip(fraction, 1).squeeze(-1), hidden = flip(0.8, 1).squeeze(-1), kept = flip(0.5, 1).squeeze(-1);
  constexpr std::int64_t bits = 30;
  const auto powers = at::pow(2, at::arange(bits, tokens.options()));
  const auto random = (flip(0.5, bits) * powers).sum(-1).remainder(vocabulary);
  const auto replaced = at::where(hidden, at::full_like(tokens, vocabulary), at::where(kept, tokens, random));
  return {at::where(chosen, replaced, tokens), at::where(chosen, tokens, at::full_like(tokens, ignored_target))};
}

}  // namespace longnet
