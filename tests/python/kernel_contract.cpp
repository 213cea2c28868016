// The wrappers of core/attention/kernels as operators, so that kernel_contract_test.py can see what they hand to LibTorch.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "core/attention/kernels/kernels.h"
#include "core/error.h"

namespace longnet {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor> forward(c10::string_view kernel, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, bool causal, const OptionalTensor& bias) {
  const auto result = [&]() -> KernelOutput {
    if (kernel == "flash") return kernels::cuda_flash(q, k, v, causal);
    if (kernel == "cudnn") return kernels::cudnn(q, k, v, causal);
    if (kernel == "efficient") return kernels::efficient(q, k, v, causal, bias);
    if (kernel == "cpu") return kernels::cpu_flash(q, k, v, causal, bias);
    throw Error("no such kernel");
  }();
  return {result.out, result.lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(c10::string_view kernel, const at::Tensor& out_gradient,
                                                        const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                        const at::Tensor& out, const at::Tensor& lse, bool causal,
                                                        const OptionalTensor& bias) {
  const kernels::BackwardCall call{out_gradient, q, k, v, out, lse, causal, bias};
  const auto result = [&]() -> KernelGradients {
    if (kernel == "flash") return kernels::cuda_flash_backward(call);
    if (kernel == "cudnn") return kernels::cudnn_backward(call);
    if (kernel == "efficient") return kernels::efficient_backward(call);
    if (kernel == "cpu") return kernels::cpu_flash_backward(call);
    throw Error("no such kernel");
  }();
  return {result.q, result.k, result.v};
}

}  // namespace
}  // namespace longnet

TORCH_LIBRARY(longnet_test, library) {
  library.def("forward(str kernel, Tensor q, Tensor k, Tensor v, bool causal, Tensor? bias) -> (Tensor, Tensor)",
              &longnet::forward);
  library.def(
      "backward(str kernel, Tensor out_gradient, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, bool causal, "
      "Tensor? bias) -> (Tensor, Tensor, Tensor)",
      &longnet::backward);
}
