#include "core/layers/rotary.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "core/layers/cuda/rotary.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CudaRotation : public torch::autograd::Function<CudaRotation> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& rotations) {
    ctx->save_for_backward({rotations});
    return cuda::rotate(x.contiguous(), rotations, /*back=*/false);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    return {cuda::rotate(gradients[0].contiguous(), ctx->get_saved_variables()[0], /*back=*/true), at::Tensor()};
  }
};

}  // namespace

at::Tensor rotary_rotations(Range positions, std::int64_t head_width, const at::TensorOptions& options) {
  const auto exact = options.dtype(at::kDouble);
  const auto position = at::arange(positions.begin, positions.end, exact);
  const auto pair = at::arange(0, head_width, 2, exact);
  const auto frequency = (pair * (-std::log(10000.0) / static_cast<double>(head_width))).exp();
  const auto angle = position.unsqueeze(1) * frequency;
  const auto rotations = at::polar(at::ones_like(angle), angle).unsqueeze(1);
  return options.dtype() == at::kDouble ? rotations : rotations.to(at::kComplexFloat);
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations) {
  if (x.is_cuda()) return CudaRotation::apply(x, rotations);
  const auto wide = x.to(at::toOpMathType(x.scalar_type()));
  const auto pairs = at::view_as_complex(wide.unflatten(-1, {-1, 2}).contiguous());
  return at::view_as_real(pairs * rotations).flatten(-2).to(x.scalar_type());
}

}  // namespace longnet
