#include "core/training/clipping.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

namespace longnet {

at::Tensor global_norm(const at::Tensor& flat) {
  if (flat.numel() == 0) return at::zeros({}, flat.options().dtype(at::kDouble));
  constexpr std::int64_t chunk = 1 << 20;  // bounds the float64 copy that the CPU makes
  std::vector<at::Tensor> chunks;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += chunk) {
    chunks.push_back(flat.slice(0, begin, std::min(begin + chunk, flat.numel())));
  }
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(chunks, 2, at::kDouble)), 2);
}

at::Tensor clip_factor(const at::Tensor& norm, double limit) {
  if (limit <= 0) return at::ones_like(norm);
  return (limit / norm).clamp_max(1);
}

}  // namespace longnet
