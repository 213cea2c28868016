#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "core/attention/key_value_exchange.h"
#include "core/attention/plan.h"

namespace longnet {

struct AttentionOutput {
  at::Tensor out;  ///< (B, n, H, D), q's dtype; 0 where a query has no key
  at::Tensor lse;  ///< (B, n, H), float64 for float64 inputs, else float32; -inf where a query has no key; no gradient
};

/// Dilated attention of the queries that `plan.own` holds: one softmax over the keys of all branches (LongNet, sections
/// 2.2-2.4), with scale 1 / sqrt(D), exact gradients through the mixture weights included.
///
/// q, k, v: (B, n, H, D), n = plan.own.size(), float32, float64, bfloat16 or, on a GPU, float16, any strides with D
/// contiguous; never copied. key_mask: (B, N) bool over the whole sequence, true for keys that take part. exchange:
/// needed exactly when the plan has crossing segments. Throws Error for shapes or dtypes that do not fit. Double
/// backward is refused.
AttentionOutput dilated_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  std::shared_ptr<const AttentionPlan> plan,
                                  const std::optional<at::Tensor>& key_mask = {},
                                  std::shared_ptr<KeyValueExchange> exchange = nullptr);

}  // namespace longnet
