#include "core/attention/flash.h"

#include <ATen/ATen.h>

#include <limits>

namespace longnet {
namespace {

/// The bias as the kernel wants it: one row a query, all the same memory.
std::optional<at::Tensor> kernel_mask(const std::optional<at::Tensor>& key_bias, std::int64_t rows) {
  if (!key_bias) return {};
  return key_bias->expand({-1, -1, rows, -1});
}

/// (batch, heads, rows or 1): whether a query sees a key. The kernel reports an lse of 0 for one that does not.
at::Tensor sees_a_key(const at::Tensor& key_bias, bool causal) {
  const auto takes_part = key_bias.squeeze(2).eq(0);
  if (!causal) return takes_part.any(-1, /*keepdim=*/true);
  return takes_part.cumsum(-1, at::kLong).gt(0);
}

}  // namespace

FlashOutput flash_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                          const std::optional<at::Tensor>& key_bias) {
  auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0.0, causal,
                                                                    kernel_mask(key_bias, q.size(2)));
  if (key_bias) {
    const auto dead = sees_a_key(*key_bias, causal).logical_not();
    lse.masked_fill_(dead, -std::numeric_limits<double>::infinity());
    out.masked_fill_(dead.unsqueeze(-1), 0);
  }
  return {out, lse};
}

FlashGradients flash_backward(const at::Tensor& out_gradient, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse, bool causal,
                              const std::optional<at::Tensor>& key_bias) {
  auto [q_gradient, k_gradient, v_gradient] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      out_gradient, q, k, v, out, lse, /*dropout_p=*/0.0, causal, kernel_mask(key_bias, q.size(2)));
  return {q_gradient, k_gradient, v_gradient};
}

}  // namespace longnet
