#include <ATen/ATen.h>

#include "core/attention/kernels/kernels.h"

namespace longnet::kernels {
namespace {

/// The bias as the kernel wants it: one row a query, all the same memory.
OptionalBias mask(const OptionalBias& key_bias, std::int64_t rows) {
  if (!key_bias) return {};
  return key_bias->expand({-1, -1, rows, -1});
}

}  // namespace

KernelOutput cpu_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                       const OptionalBias& key_bias) {
  auto [out, lse] =
      at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0.0, causal, mask(key_bias, q.size(2)));
  KernelOutput output{out, lse};
  clear_dead_rows(output, key_bias, causal);
  return output;
}

KernelGradients cpu_flash_backward(const BackwardCall& call) {
  auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      call.out_gradient, call.q, call.k, call.v, call.out, call.lse, /*dropout_p=*/0.0, call.causal,
      mask(call.key_bias, call.q.size(2)));
  return {q, k, v};
}

}  // namespace longnet::kernels
