#include "core/attention/kernel.h"

#include <ATen/ATen.h>

#include <limits>

#include "core/attention/kernel_choice.h"
#include "core/attention/kernels/kernels.h"
#include "core/cuda/device.h"
#include "core/error.h"

namespace longnet {
namespace {

bool aligned(const at::Tensor& tensor) {
  constexpr std::int64_t bytes = 16;
  const auto element = static_cast<std::int64_t>(tensor.element_size());
  if (reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % bytes != 0) return false;
  if (tensor.size(3) * element % bytes != 0) return false;
  for (std::int64_t dimension = 0; dimension < 3; ++dimension) {
    if (tensor.size(dimension) > 1 && tensor.stride(dimension) * element % bytes != 0) return false;
  }
  return true;
}

Kernel choose(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool masked) {
  const bool cuda = q.is_cuda();
  return choose_kernel({cuda, cuda ? compute_capability(q.device()) : 0, q.scalar_type(), q.size(3), q.size(2),
                        k.size(2), masked, cuda && aligned(q) && aligned(k) && aligned(v)});
}

}  // namespace

namespace kernels {

void clear_dead_rows(KernelOutput& output, const OptionalBias& key_bias, bool causal) {
  if (!key_bias) return;
  const auto takes_part = key_bias->squeeze(2).eq(0);
  const auto alive = causal ? takes_part.cumsum(-1, at::kLong).gt(0) : takes_part.any(-1, /*keepdim=*/true);
  const auto dead = alive.logical_not();  // (batch, heads, rows or 1)
  output.lse.masked_fill_(dead, -std::numeric_limits<double>::infinity());
  output.out.masked_fill_(dead.unsqueeze(-1), 0);
}

}  // namespace kernels

KernelOutput kernel_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                            const std::optional<at::Tensor>& key_bias) {
  switch (choose(q, k, v, key_bias.has_value())) {
    case Kernel::CpuFlash:
      return kernels::cpu_flash(q, k, v, causal, key_bias);
    case Kernel::CudaFlash:
      return kernels::cuda_flash(q, k, v, causal);
    case Kernel::Cudnn:
      return kernels::cudnn(q, k, v, causal);
    case Kernel::Efficient:
      return kernels::efficient(q, k, v, causal, key_bias);
    case Kernel::Plain:
      return kernels::plain(q, k, v, causal, key_bias);
  }
  throw Error("an attention kernel of no known type");
}

KernelGradients kernel_backward(const at::Tensor& out_gradient, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse, bool causal,
                                const std::optional<at::Tensor>& key_bias) {
  const kernels::BackwardCall call{out_gradient, q, k, v, out, lse, causal, key_bias};
  switch (choose(q, k, v, key_bias.has_value())) {
    case Kernel::CpuFlash:
      return kernels::cpu_flash_backward(call);
    case Kernel::CudaFlash:
      return kernels::cuda_flash_backward(call);
    case Kernel::Cudnn:
      return q.strides() == out.strides() && q.strides() == out_gradient.strides() ? kernels::cudnn_backward(call)
                                                                                   : kernels::cuda_flash_backward(call);
    case Kernel::Efficient:
      return kernels::efficient_backward(call);
    case Kernel::Plain:
      return kernels::plain_backward(call);
  }
  throw Error("an attention kernel of no known type");
}

}  // namespace longnet
