#include "core/layers/linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.h"
#include "core/layers/cuda/cross_entropy.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A GPU is better served with few large products, and keeps no wide copy of the logits.
std::int64_t default_chunk_elements(c10::Device device) {
  return std::int64_t{1} << (device.is_cuda() ? 27 : 24);
}

/// Losses of one chunk of rows, and what remains of its logits: the gradient of their sum.
struct Chunk {
  at::Tensor losses;
  at::Tensor logit_gradient;  // (rows, V)
};

Chunk chunk_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets, bool with_gradient) {
  auto logits = at::mm(hidden, weight.t());
  if (logits.is_cuda()) {
    auto losses = cuda::cross_entropy(logits, targets, with_gradient);
    return {losses, logits};
  }
  logits = logits.to(at::toOpMathType(hidden.scalar_type()));
  const auto counts = targets.ne(ignored_target);
  const auto label = at::where(counts, targets, 0).unsqueeze(1);
  const auto normalizer = logits.logsumexp(1, /*keepdim=*/true);
  auto losses = (normalizer - logits.gather(1, label)).squeeze(1).masked_fill_(counts.logical_not(), 0);
  if (!with_gradient) return {losses, {}};
  logits.sub_(normalizer).exp_();
  logits.scatter_add_(1, label, at::full_like(normalizer, -1));
  logits.masked_fill_(counts.logical_not().unsqueeze(1), 0);
  return {losses, logits.to(hidden.scalar_type())};
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                               const at::Tensor& targets, std::int64_t chunk_elements, bool with_gradient) {
    const std::int64_t rows = hidden.size(0);
    const std::int64_t most = chunk_elements > 0 ? chunk_elements : default_chunk_elements(hidden.device());
    const std::int64_t chunk = std::max<std::int64_t>(1, most / weight.size(0));
    const auto narrow_weight = weight.to(hidden.scalar_type());
    const auto wide = at::toOpMathType(hidden.scalar_type());
    auto losses = at::zeros({rows}, hidden.options().dtype(wide));
    at::Tensor hidden_gradient, weight_gradient;
    if (with_gradient) {
      hidden_gradient = at::empty_like(hidden);
      weight_gradient = at::zeros_like(weight);
    }
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const auto part = [&](const at::Tensor& tensor) { return tensor.slice(0, begin, std::min(begin + chunk, rows)); };
      const auto [chunk_loss, logit_gradient] = chunk_losses(part(hidden), narrow_weight, part(targets), with_gradient);
      part(losses).copy_(chunk_loss);
      if (!with_gradient) continue;
      part(hidden_gradient).copy_(at::mm(logit_gradient, narrow_weight));
      weight_gradient.add_(at::mm(logit_gradient.t(), part(hidden)));
    }
    if (with_gradient) ctx->save_for_backward({hidden_gradient, weight_gradient});
    ctx->mark_non_differentiable({losses});
    return {losses.sum(at::kDouble), losses};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto scaled = [&](const at::Tensor& gradient) { return gradient * gradients[0].to(gradient.scalar_type()); };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                  std::int64_t chunk_elements) {
  if (hidden.dim() != 2 || weight.dim() != 2 || hidden.size(1) != weight.size(1) || targets.dim() != 1 ||
      targets.size(0) != hidden.size(0)) {
    throw Error("linear cross-entropy: the shapes are not (n, C), (V, C) and (n)");
  }
  const bool with_gradient = at::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad());
  const auto outputs = LinearCrossEntropy::apply(hidden, weight, targets, chunk_elements, with_gradient);
  return {outputs[0], outputs[1]};
}

}  // namespace longnet
