#include "core/attention/dilated_attention.h"

#include <ATen/ATen.h>

#include "core/attention/attention_pass.h"
#include "core/autograd.h"
#include "core/error.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What the backward pass needs besides tensors.
struct Circumstances {
  std::shared_ptr<const AttentionPlan> plan;
  std::shared_ptr<KeyValueExchange> exchange;
};

class DilatedAttention : public torch::autograd::Function<DilatedAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const std::optional<at::Tensor>& key_mask,
                               const c10::intrusive_ptr<Kept<Circumstances>>& circumstances) {
    const auto& [plan, exchange] = circumstances->value;
    const auto result = attention_forward({q, k, v, *plan, key_mask, exchange.get()});
    variable_list saved{q, k, v, result.out, result.lse, key_mask.value_or(at::Tensor())};
    for (const SegmentRows& rows : result.remote) saved.insert(saved.end(), {rows.keys, rows.values});
    ctx->save_for_backward(saved);
    keep(ctx, circumstances);
    ctx->mark_non_differentiable({result.lse});
    return {result.out, result.lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    if (at::GradMode::is_enabled()) {
      throw Error("dilated attention has no second derivative: call backward without create_graph");
    }
    const auto saved = ctx->get_saved_variables();
    const auto& [plan, exchange] = recall<Circumstances>(ctx);
    const auto key_mask = saved[5].defined() ? std::optional(saved[5]) : std::nullopt;
    AttentionResult result{saved[3], saved[4], {}};
    for (std::size_t i = 6; i < saved.size(); i += 2) result.remote.push_back({saved[i], saved[i + 1]});
    const AttentionInputs inputs{saved[0], saved[1], saved[2], *plan, key_mask, exchange.get()};
    const auto [q, k, v] = attention_backward(gradients[0], inputs, result);
    return {q, k, v, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

AttentionOutput dilated_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  std::shared_ptr<const AttentionPlan> plan, const std::optional<at::Tensor>& key_mask,
                                  std::shared_ptr<KeyValueExchange> exchange) {
  require_valid({q, k, v, *plan, key_mask, exchange.get()});
  // Where rows were exchanged, their owners wait for this rank's gradients of them.
  const auto followed_q = exchange ? always_followed(q) : q;
  const auto outputs =
      DilatedAttention::apply(followed_q, k, v, key_mask, kept(Circumstances{std::move(plan), std::move(exchange)}));
  return {outputs[0], outputs[1]};
}

}  // namespace longnet
