#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

/// Attention of one kernel call on strided views: LibTorch's kernels behind one contract, with their traps closed.
///
/// Shapes: q (batch, heads, rows, D); k, v (batch, heads, keys, D); lse (batch, heads, rows), float64 for float64
/// inputs and float32 for all others. Channels are contiguous. At least one row and one head. `causal` needs rows ==
/// keys: query i sees keys 0..i.
namespace longnet {

struct KernelOutput {
  at::Tensor out;  ///< (batch, heads, rows, D), q's dtype; 0 where a query has no key
  at::Tensor lse;  ///< (batch, heads, rows); -inf where a query has no key
};

/// Of q's dtype.
struct KernelGradients {
  at::Tensor q;
  at::Tensor k;
  at::Tensor v;
};

/// Softmax attention with scale 1 / sqrt(D). `key_bias` (batch, heads, 1, keys), of q's dtype, is 0 for keys that take
/// part and -inf for all others. The kernel is the one that kernel_choice.h names.
KernelOutput kernel_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                            const std::optional<at::Tensor>& key_bias);

/// Gradients of q, k and v, given an out and lse that may belong to a larger softmax of which these keys are a part.
/// `lse` must be +inf where a query has no key at all.
KernelGradients kernel_backward(const at::Tensor& out_gradient, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse, bool causal,
                                const std::optional<at::Tensor>& key_bias);

}  // namespace longnet
