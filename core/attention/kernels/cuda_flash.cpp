#include <ATen/ATen.h>

#include "core/attention/kernels/kernels.h"

namespace longnet::kernels {

KernelOutput cuda_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
  const auto result = at::_scaled_dot_product_flash_attention(q, k, v, /*dropout_p=*/0.0, causal);
  return {std::get<0>(result), std::get<1>(result)};
}

KernelGradients cuda_flash_backward(const BackwardCall& call) {
  // The kernel reads lse as dense memory, without a check. The state of a random generator, in the shapes that the forward
  // pass returns, is for dropout, which there is none of; no cumulative lengths say that all sequences are equally long.
  const auto state = call.q.options().dtype(at::kUInt64);
  const at::Tensor none, seed = at::empty({2}, state), offset = at::empty({}, state);
  auto [q, k, v] = at::_scaled_dot_product_flash_attention_backward(
      call.out_gradient, call.q, call.k, call.v, call.out, call.lse.contiguous(), none, none, call.q.size(2),
      call.k.size(2), /*dropout_p=*/0.0, call.causal, seed, offset);
  return {q, k, v};
}

}  // namespace longnet::kernels
