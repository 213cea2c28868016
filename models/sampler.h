#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longnet {

struct SamplerSettings {
  double temperature = 1;  ///< 0: always the likeliest token
  std::int64_t top_k = 0;  ///< only the k likeliest; 0: all
  double top_p = 1;        ///< only the likeliest that together have this probability
};

/// Draws a token from `logits` (V).
std::int64_t sample_token(const at::Tensor& logits, const SamplerSettings& settings, at::Generator& generator);

}  // namespace longnet
