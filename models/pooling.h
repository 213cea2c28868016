#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <utility>

#include "core/configuration/config_section.h"
#include "models/model.h"

namespace longnet {

/// How the positions of a sequence become one vector.
enum class Pooling {
  Mean,        ///< of all positions but those that the model put in front
  ClassToken,  ///< the first position
};

template <>
struct ConfigNames<Pooling> {
  static constexpr std::array<std::pair<const char*, Pooling>, 2> names{
      {{"mean", Pooling::Mean}, {"class_token", Pooling::ClassToken}}};
};

/// x (B, n, C) of the batch's shard, whose first `prefix` positions are the model's own, to (B, C) on every shard of
/// the sequence, in float32 or wider. Positions beyond a sequence's end take no part. Differentiable; collective.
at::Tensor pool(const at::Tensor& x, Pooling pooling, std::int64_t prefix, const Batch& batch,
                const SequenceParallel& parallel);

}  // namespace longnet
