#include "core/layers/rotary.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "core/layers/cuda/rotary.h"
#include "core/to_device.h"

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

constexpr double xpos_base = 512;

constexpr double smallest_xpos_ratio = 0.4 / 1.4;

at::Tensor exact_rotations(Range positions, std::int64_t head_width, const at::TensorOptions& options) {
  const auto position = at::arange(positions.begin, positions.end, options.dtype(at::kDouble));
  // On the host: a frequency that another device rounds otherwise turns a distant position by 1e-7.
  const auto pair = at::arange(0, head_width, 2, at::kDouble);
  const auto frequency = (pair * (-std::log(10000.0) / static_cast<double>(head_width))).exp();
  const auto angle = position.unsqueeze(1) * to_device(frequency, position.device());
  return at::polar(at::ones_like(angle), angle).unsqueeze(1);
}

at::Tensor rounded(const at::Tensor& rotations, const at::TensorOptions& options) {
  return options.dtype() == at::kDouble ? rotations : rotations.to(at::kComplexFloat);
}

}  // namespace

at::Tensor rotary_rotations(Range positions, std::int64_t head_width, const at::TensorOptions& options) {
  return rounded(exact_rotations(positions, head_width, options), options);
}

Rotations xpos_rotations(Range positions, std::int64_t length, std::int64_t head_width,
                         const at::TensorOptions& options) {
  const auto exact = options.dtype(at::kDouble);
  const auto width = static_cast<double>(head_width);
  const auto ratio = (at::arange(0, head_width, 2, exact) + 0.4 * width) / (1.4 * width);
  const std::int64_t middle = (length + 1) / 2;  // -floor(-N / 2)
  const auto power = at::arange(positions.begin - middle, positions.end - middle, exact) / xpos_base;
  const auto scale = (power.unsqueeze(1) * ratio.log()).exp().unsqueeze(1);
  const auto rotations = exact_rotations(positions, head_width, options);
  return {rounded(rotations * scale, options), rounded(rotations / scale, options)};
}

std::int64_t longest_xpos_sequence(at::ScalarType dtype) {
  const double largest = dtype == at::kDouble ? std::log(std::numeric_limits<double>::max())
                                              : std::log(static_cast<double>(std::numeric_limits<float>::max()));
  return static_cast<std::int64_t>(2 * xpos_base * (largest - std::log(1000.0)) / -std::log(smallest_xpos_ratio));
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations) {
  if (x.is_cuda()) return CudaRotation::apply(x, rotations);
  const auto wide = x.to(at::toOpMathType(x.scalar_type()));
  const auto pairs = at::view_as_complex(wide.unflatten(-1, {-1, 2}).contiguous());
  return at::view_as_real(pairs * rotations).flatten(-2).to(x.scalar_type());
}

}  // namespace longnet
