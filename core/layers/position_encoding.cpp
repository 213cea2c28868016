#include "core/layers/position_encoding.h"

#include <ATen/ATen.h>

#include <cmath>

namespace longnet {

at::Tensor sinusoidal_encoding(const at::Tensor& places, std::int64_t width) {
  const std::int64_t half = width / 2;
  const auto exact = places.options().dtype(at::kDouble);
  const auto frequency = (at::arange(half, exact) * (-std::log(10000.0) / static_cast<double>(half))).exp();
  const auto angle = places.to(at::kDouble).unsqueeze(-1) * frequency;
  return at::cat({angle.sin(), angle.cos()}, -1);
}

at::Tensor grid_encoding(const at::Tensor& coordinates, double cell, std::int64_t width) {
  const auto cells = (coordinates.to(at::kDouble) / cell).floor();
  return at::cat(
      {sinusoidal_encoding(cells.select(-1, 1), width / 2), sinusoidal_encoding(cells.select(-1, 0), width / 2)}, -1);
}

}  // namespace longnet
