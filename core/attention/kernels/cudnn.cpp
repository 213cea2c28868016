#include <ATen/ATen.h>

#include "core/attention/kernels/kernels.h"

namespace longnet::kernels {

KernelOutput cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
  const auto result = at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/{}, /*compute_log_sumexp=*/true,
                                                              /*dropout_p=*/0.0, causal);
  return {std::get<0>(result), std::get<1>(result).view({q.size(0), q.size(1), q.size(2)})};
}

KernelGradients cudnn_backward(const BackwardCall& call) {
  // cuDNN takes lse with a last dimension of 1, as its forward pass gives it.
  const auto lse = call.lse.contiguous().unsqueeze(-1);
  const at::Tensor none, state = at::empty({}, call.q.options().dtype(at::kLong));
  auto [q, k, v] = at::_scaled_dot_product_cudnn_attention_backward(call.out_gradient, call.q, call.k, call.v, call.out,
                                                                    lse, state, state, none, none, none, call.q.size(2),
                                                                    call.k.size(2), /*dropout_p=*/0.0, call.causal);
  return {q, k, v};
}

}  // namespace longnet::kernels
