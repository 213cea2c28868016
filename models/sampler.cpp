#include "models/sampler.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace longnet {

std::int64_t sample_token(const at::Tensor& logits, const SamplerSettings& settings, at::Generator& generator) {
  const auto [sorted, order] =
      logits.to(at::TensorOptions().dtype(at::kDouble).device(at::kCPU)).sort(-1, /*descending=*/true);
  if (settings.temperature == 0) return order[0].item<std::int64_t>();
  auto probability = ((sorted - sorted[0]) / settings.temperature).softmax(-1);  // finite at any temperature
  const std::int64_t kept = settings.top_k > 0 ? std::min(settings.top_k, probability.size(0)) : probability.size(0);
  // A token stays while those before it have less than top_p together: the likeliest always does.
  const auto before = probability.cumsum(-1) - probability;
  probability = probability.masked_fill(before.ge(settings.top_p), 0).slice(0, 0, kept);
  return order[at::multinomial(probability, 1, false, generator).item<std::int64_t>()].item<std::int64_t>();
}

}  // namespace longnet
