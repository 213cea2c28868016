#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
#include <optional>

#include "core/attention/kernel.h"

/// One wrapper a kernel, each with the contract of core/attention/kernel.h. A mask is given only to kernels that take
/// one (see kernel_choice.h).
namespace longnet::kernels {

using OptionalBias = std::optional<at::Tensor>;

/// The arguments of a backward pass.
struct BackwardCall {
  const at::Tensor &out_gradient, &q, &k, &v, &out, &lse;
  bool causal;
  const OptionalBias& key_bias;
};

KernelOutput cpu_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                       const OptionalBias& key_bias);
KernelGradients cpu_flash_backward(const BackwardCall& call);

KernelOutput cuda_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal);
KernelGradients cuda_flash_backward(const BackwardCall& call);

KernelOutput cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal);
/// Needs out and out_gradient with q's strides: LibTorch keeps cuDNN's plans by the layout of q, k and v alone.
KernelGradients cudnn_backward(const BackwardCall& call);

KernelOutput efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                       const OptionalBias& key_bias);
KernelGradients efficient_backward(const BackwardCall& call);

KernelOutput plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                   const OptionalBias& key_bias);
KernelGradients plain_backward(const BackwardCall& call);

/// Sets out to 0 and lse to -inf where a query has no key left: kernels report other values there.
void clear_dead_rows(KernelOutput& output, const OptionalBias& key_bias, bool causal);

}  // namespace longnet::kernels
