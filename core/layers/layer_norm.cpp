#include "core/layers/layer_norm.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/layers/cuda/layer_norm.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaLayerNorm : public torch::autograd::Function<CudaLayerNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            double epsilon) {
    const auto rows = x.flatten(0, -2).contiguous();
    const auto output = cuda::layer_norm(rows, weight, bias, epsilon);
    ctx->save_for_backward({rows, weight, output.mean, output.inverse_deviation});
    return output.y.view(x.sizes());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto rows = gradients[0].reshape(saved[0].sizes()).contiguous();
    const auto result = cuda::layer_norm_backward(rows, saved[0], saved[1], saved[2], saved[3]);
    return {result.x.view(gradients[0].sizes()), result.weight, result.bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon) {
  const auto type = x.scalar_type();
  if (x.is_cuda() && x.dim() > 1 && weight.scalar_type() == at::toOpMathType(type) &&
      cuda::takes_layer_norm(x.size(-1), type)) {
    return CudaLayerNorm::apply(x, weight, bias, epsilon);
  }
  return at::layer_norm(x, {x.size(-1)}, weight.to(type), bias.to(type), epsilon);
}

}  // namespace longnet
