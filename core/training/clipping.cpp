#include "core/training/clipping.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace longnet {

double global_norm(const at::Tensor& flat) {
  constexpr std::int64_t chunk = 1 << 20;  // bounds the float64 copy
  double sum = 0;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += chunk) {
    const auto part = flat.slice(0, begin, std::min(begin + chunk, flat.numel())).to(at::kDouble);
    sum += at::dot(part, part).item<double>();
  }
  return std::sqrt(sum);
}

double clip_factor(double norm, double limit) {
  return limit > 0 && norm > limit ? limit / norm : 1;
}

}  // namespace longnet
