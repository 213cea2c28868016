// The operator longnet::dilated_attention for Python: torch.ops.load_library("liblongnet_ops.so"). See docs/python.md.
//
// Each function is registered below autograd for CPU and GPU, as a Meta kernel, which knows shapes only, and for
// autograd. The backward pass is an operator of its own, so that torch.compile can trace it.

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <memory>
#include <tuple>
#include <vector>

#include "core/attention/attention_pass.h"
#include "core/error.h"

namespace longnet {
namespace {

using Integers = at::IntArrayRef;
using OptionalTensor = std::optional<at::Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

HeadOffsets head_offsets(c10::string_view layout) {
  if (layout == "cyclic") return HeadOffsets::Cyclic;
  if (layout == "block") return HeadOffsets::Block;
  throw ConfigError("layout is '" + std::string(layout) + "', but must be cyclic or block");
}

AttentionPlan plan(const at::Tensor& q, Integers segments, Integers rates, bool causal, c10::string_view layout) {
  if (q.dim() != 4) throw Error("dilated attention: q is not (B, N, H, D)");
  const auto mixture = make_mixture(segments.vec(), rates.vec(), head_offsets(layout));
  return plan_attention(mixture, q.size(2), causal, q.size(1), {0, q.size(1)});
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           Integers segments, Integers rates, bool causal, c10::string_view layout,
                                           const OptionalTensor& key_mask) {
  const auto whole = plan(q, segments, rates, causal, layout);
  const AttentionInputs inputs{q, k, v, whole, key_mask, nullptr};
  require_valid(inputs);
  const auto result = attention_forward(inputs);
  return {result.out, result.lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& out_gradient, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                                                        const at::Tensor& lse, Integers segments, Integers rates,
                                                        bool causal, c10::string_view layout,
                                                        const OptionalTensor& key_mask) {
  const auto whole = plan(q, segments, rates, causal, layout);
  const AttentionInputs inputs{q, k, v, whole, key_mask, nullptr};
  require_valid(inputs);
  const auto gradients = attention_backward(out_gradient, inputs, {out.contiguous(), lse.contiguous(), {}});
  return {gradients.q, gradients.k, gradients.v};
}

std::tuple<at::Tensor, at::Tensor> forward_shapes(const at::Tensor& q, const at::Tensor&, const at::Tensor&, Integers,
                                                  Integers, bool, c10::string_view, const OptionalTensor&) {
  const auto sizes = q.sym_sizes();
  TORCH_CHECK(sizes.size() == 4, "dilated attention: q is not (B, N, H, D)");
  return {at::empty_symint(sizes, q.options()),
          at::empty_symint(sizes.slice(0, 3), q.options().dtype(at::toOpMathType(q.scalar_type())))};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_shapes(const at::Tensor&, const at::Tensor& q,
                                                               const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                               const at::Tensor&, Integers, Integers, bool,
                                                               c10::string_view, const OptionalTensor&) {
  const auto gradient = [&] { return at::empty_symint(q.sym_sizes(), q.options()); };
  return {gradient(), gradient(), gradient()};
}

std::tuple<at::Tensor, at::Tensor> call_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                Integers segments, Integers rates, bool causal, c10::string_view layout,
                                                const OptionalTensor& key_mask) {
  static const auto function =
      c10::Dispatcher::singleton().findSchemaOrThrow("longnet::dilated_attention", "").typed<decltype(forward)>();
  return function.call(q, k, v, segments, rates, causal, layout, key_mask);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> call_backward(const at::Tensor& out_gradient, const at::Tensor& q,
                                                             const at::Tensor& k, const at::Tensor& v,
                                                             const at::Tensor& out, const at::Tensor& lse,
                                                             Integers segments, Integers rates, bool causal,
                                                             c10::string_view layout, const OptionalTensor& key_mask) {
  static const auto function = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("longnet::dilated_attention_backward", "")
                                   .typed<decltype(backward)>();
  return function.call(out_gradient, q, k, v, out, lse, segments, rates, causal, layout, key_mask);
}

class DilatedAttentionOperator : public torch::autograd::Function<DilatedAttentionOperator> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const std::vector<std::int64_t>& segments, const std::vector<std::int64_t>& rates,
                               bool causal, const std::string& layout, const OptionalTensor& key_mask) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [out, lse] = call_forward(q, k, v, segments, rates, causal, layout, key_mask);
    ctx->save_for_backward({q, k, v, out, lse, key_mask.value_or(at::Tensor())});
    ctx->saved_data["segments"] = segments;
    ctx->saved_data["rates"] = rates;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["layout"] = layout;
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto key_mask = saved[5].defined() ? OptionalTensor(saved[5]) : std::nullopt;
    const auto [q, k, v] =
        call_backward(gradients[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                      ctx->saved_data["segments"].toIntVector(), ctx->saved_data["rates"].toIntVector(),
                      ctx->saved_data["causal"].toBool(), ctx->saved_data["layout"].toStringRef(), key_mask);
    return {q, k, v, {}, {}, {}, {}, {}};
  }
};

std::tuple<at::Tensor, at::Tensor> forward_with_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                         Integers segments, Integers rates, bool causal,
                                                         c10::string_view layout, const OptionalTensor& key_mask) {
  const auto outputs =
      DilatedAttentionOperator::apply(q, k, v, segments.vec(), rates.vec(), causal, std::string(layout), key_mask);
  return {outputs[0], outputs[1]};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_without_gradient(
    const at::Tensor& out_gradient, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor& lse, Integers segments, Integers rates, bool causal,
    c10::string_view layout, const OptionalTensor& key_mask) {
  const bool wanted = out_gradient.requires_grad() || q.requires_grad() || k.requires_grad() || v.requires_grad();
  if (at::GradMode::is_enabled() && wanted) {
    throw Error("dilated attention has no second derivative: call backward without create_graph");
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return call_backward(out_gradient, q, k, v, out, lse, segments, rates, causal, layout, key_mask);
}

}  // namespace
}  // namespace longnet

TORCH_LIBRARY(longnet, library) {
  library.def(
      "dilated_attention(Tensor q, Tensor k, Tensor v, int[] segments, int[] rates, bool causal, str layout, "
      "Tensor? key_mask) -> (Tensor out, Tensor lse)");
  library.def(
      "dilated_attention_backward(Tensor out_gradient, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
      "int[] segments, int[] rates, bool causal, str layout, Tensor? key_mask) -> (Tensor q, Tensor k, Tensor v)");
}

TORCH_LIBRARY_IMPL(longnet, CPU, library) {
  library.impl("dilated_attention", &longnet::forward);
  library.impl("dilated_attention_backward", &longnet::backward);
}

TORCH_LIBRARY_IMPL(longnet, CUDA, library) {
  library.impl("dilated_attention", &longnet::forward);
  library.impl("dilated_attention_backward", &longnet::backward);
}

TORCH_LIBRARY_IMPL(longnet, Meta, library) {
  library.impl("dilated_attention", &longnet::forward_shapes);
  library.impl("dilated_attention_backward", &longnet::backward_shapes);
}

TORCH_LIBRARY_IMPL(longnet, Autograd, library) {
  library.impl("dilated_attention", &longnet::forward_with_gradient);
  library.impl("dilated_attention_backward", &longnet::backward_without_gradient);
}
