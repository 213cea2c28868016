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
  return std::int64_t{1} << (device.is_cuda() ? 28 : 24);
}

/// The output weights (columns, C) in the dtype of the products. On a GPU rows of logits must begin at multiples of 16 bytes, or
/// its matrix units go unused: a vocabulary of 50,257 gets 47 columns of zeros that do not count.
at::Tensor output_columns(const at::Tensor& weight, const at::Tensor& hidden) {
  auto narrow = weight.to(hidden.scalar_type());
  if (!weight.is_cuda()) return narrow;
  constexpr std::int64_t multiple = 64;
  const std::int64_t vocabulary = weight.size(0), columns = (vocabulary + multiple - 1) / multiple * multiple;
  return columns == vocabulary ? narrow : at::constant_pad_nd(narrow, {0, 0, 0, columns - vocabulary});
}

/// Losses of one chunk of rows, and what remains of its logits: the gradient of their sum.
struct Chunk {
  at::Tensor losses;
  at::Tensor logit_gradient;  // (rows, columns)
};

Chunk chunk_losses(const at::Tensor& hidden, const at::Tensor& columns, const at::Tensor& targets,
                   std::int64_t vocabulary, bool with_gradient) {
  auto logits = at::mm(hidden, columns.t());
  if (logits.is_cuda()) {
    auto losses = cuda::cross_entropy(logits, targets, vocabulary, with_gradient);
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

/// a^T b, in float32 where a GPU's products have it for nothing: sums over chunks lose nothing then.
at::Tensor product_in(at::ScalarType wide, const at::Tensor& a, const at::Tensor& b) {
  const bool narrow = a.scalar_type() == at::kBFloat16 || a.scalar_type() == at::kHalf;
  return a.is_cuda() && narrow && wide == at::kFloat ? at::mm(a.t(), b, at::kFloat) : at::mm(a.t(), b);
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                               const at::Tensor& targets, std::int64_t chunk_elements, bool with_gradient) {
    const std::int64_t rows = hidden.size(0);
    const std::int64_t most = chunk_elements > 0 ? chunk_elements : default_chunk_elements(hidden.device());
    const std::int64_t vocabulary = weight.size(0), chunk = std::max<std::int64_t>(1, most / vocabulary);
    const auto columns = output_columns(weight, hidden);
    const auto wide = at::toOpMathType(hidden.scalar_type());
    auto losses = at::zeros({rows}, hidden.options().dtype(wide));
    at::Tensor hidden_gradient, weight_gradient;
    if (with_gradient) {
      hidden_gradient = at::empty_like(hidden);
      weight_gradient = at::zeros(columns.sizes(), weight.options());
    }
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      const auto part = [&](const at::Tensor& tensor) { return tensor.slice(0, begin, std::min(begin + chunk, rows)); };
      const auto [chunk_loss, logit_gradient] =
          chunk_losses(part(hidden), columns, part(targets), vocabulary, with_gradient);
      part(losses).copy_(chunk_loss);
      if (!with_gradient) continue;
      part(hidden_gradient).copy_(at::mm(logit_gradient, columns));
      weight_gradient.add_(product_in(weight.scalar_type(), logit_gradient, part(hidden)));
    }
    if (with_gradient) ctx->save_for_backward({hidden_gradient, weight_gradient.slice(0, 0, vocabulary)});
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
