#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longnet {

/// A target that does not count.
constexpr std::int64_t ignored_target = -100;

struct CrossEntropy {
  at::Tensor sum;    ///< scalar, float64: the sum of losses, in nats; differentiable
  at::Tensor token;  ///< (n), float32 or float64: the loss of each token, 0 where ignored; no gradient
};

/// Cross-entropy of softmax(hidden W^T) against `targets`, without ever holding all (n, V) logits: rows are taken in
/// chunks of at most `chunk_elements` logits (0: what suits the device), and each chunk's gradient is computed with its
/// loss.
///
/// hidden (n, C); weight (V, C), may be wider than hidden; targets (n) int64, in [0, V) or ignored_target.
CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                  std::int64_t chunk_elements = 0);

}  // namespace longnet
