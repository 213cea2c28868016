#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "core/attention/mixture.h"

namespace longnet::test {

struct OracleOutput {
  at::Tensor out;  // (B, N, H, D)
  at::Tensor lse;  // (B, N, H)
};

/// Dilated attention straight from its definition, over all N x N scores: no segment is ever reshaped, so that it
/// shares no index trick with the implementation. q, k, v (B, N, H, D) float64; key_mask (B, N) bool. Differentiable.
OracleOutput oracle(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Mixture& mixture, bool causal,
                    const std::optional<at::Tensor>& key_mask);

}  // namespace longnet::test
