#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "core/attention/key_value_exchange.h"
#include "core/attention/plan.h"

/// Dilated attention forward and backward, without autograd. See dilated_attention.h for the meaning of the arguments.
namespace longnet {

/// What an attention is computed from. All references must live as long as the object.
struct AttentionInputs {
  const at::Tensor &q, &k, &v;
  const AttentionPlan& plan;
  const std::optional<at::Tensor>& key_mask;
  KeyValueExchange* exchange;  ///< null exactly when no segment of the plan crosses its range
};

/// Throws Error for shapes, dtypes or devices that do not fit, or an exchange that is missing or idle.
void require_valid(const AttentionInputs& inputs);

struct AttentionResult {
  at::Tensor out;                   ///< (B, n, H, D)
  at::Tensor lse;                   ///< (B, n, H)
  std::vector<SegmentRows> remote;  ///< fetched rows, for the backward pass
};

AttentionResult attention_forward(const AttentionInputs& inputs);

struct AttentionGradients {
  at::Tensor q, k, v;  ///< (B, n, H, D), q's dtype
};

AttentionGradients attention_backward(const at::Tensor& out_gradient, const AttentionInputs& inputs,
                                      const AttentionResult& result);

}  // namespace longnet
