#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace longnet {

/// Where in a training run a dropout is: its mask is a function of this, the position in the sequence and the channel,
/// so it does not depend on how samples and positions are spread over ranks.
struct DropoutSite {
  std::uint64_t seed;
  std::int64_t step;
  std::vector<std::int64_t> samples;  ///< for each sequence of the batch, its index in the global batch of the step
  std::int64_t first_position;        ///< of the shard
  std::int64_t layer;
  std::int64_t site;  ///< which dropout of the layer
};

/// Zeroes each element of x (B, n, C) with probability `rate`, divides the others by 1 - rate. Differentiable; the mask
/// is made again in the backward pass, not kept.
at::Tensor dropout(const at::Tensor& x, double rate, const DropoutSite& site);

}  // namespace longnet
