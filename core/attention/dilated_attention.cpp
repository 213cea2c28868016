#include "core/attention/dilated_attention.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "core/attention/flash.h"
#include "core/attention/merge.h"
#include "core/attention/views.h"
#include "core/error.h"

namespace longnet {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// (B, N, H, 1) of q's dtype with no memory for H: 0 for keys that take part, -inf for all others.
std::optional<at::Tensor> key_bias(const std::optional<at::Tensor>& key_mask, const at::Tensor& q) {
  if (!key_mask) return {};
  const auto bias = at::zeros(key_mask->sizes(), q.options()).masked_fill_(key_mask->logical_not(), -infinity);
  return bias.unsqueeze(-1).expand({-1, -1, q.size(2)}).unsqueeze(-1);
}

/// (batch, heads, 1, keys) of one kernel call.
std::optional<at::Tensor> tile_bias(const std::optional<at::Tensor>& bias, const Tile& tile, std::int64_t call) {
  if (!bias) return {};
  return tile_view(*bias, tile, tile.key_positions, call).transpose(2, 3);
}

/// Attention of own queries to keys, which are own or fetched, accumulated over all tiles.
struct Forward {
  const at::Tensor& q;
  const std::optional<at::Tensor>& bias;
  at::Tensor out;
  at::Tensor lse;

  void attend(const Tile& tile, const at::Tensor& keys, const at::Tensor& values, bool causal) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) {
      const auto part = flash_forward(tile_view(q, tile, tile.queries, call), tile_view(keys, tile, tile.keys, call),
                                      tile_view(values, tile, tile.keys, call), causal, tile_bias(bias, tile, call));
      auto out_rows = tile_view(out, tile, tile.queries, call);
      auto lse_rows = tile_view(lse, tile, tile.queries, call);
      merge_attention(out_rows, lse_rows, part.out, part.lse);
    }
  }
};

/// The same tiles backward. Each call gets the mixture's out and lse, which makes its gradient that of the whole
/// softmax.
struct Backward {
  const at::Tensor& out_gradient;
  const at::Tensor& q;
  const at::Tensor& out;
  const at::Tensor& lse;  ///< +inf where a query has no key
  const std::optional<at::Tensor>& bias;
  at::Tensor q_gradient;

  void attend(const Tile& tile, const at::Tensor& keys, const at::Tensor& values, bool causal, at::Tensor& k_gradient,
              at::Tensor& v_gradient) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) {
      const auto queries = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.queries, call); };
      const auto rows = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.keys, call); };
      const auto part = flash_backward(queries(out_gradient), queries(q), rows(keys), rows(values), queries(out),
                                       queries(lse), causal, tile_bias(bias, tile, call));
      queries(q_gradient).add_(part.q);
      rows(k_gradient).add_(part.k);
      rows(v_gradient).add_(part.v);
    }
  }
};

/// What the backward pass needs besides tensors.
struct Context : torch::CustomClassHolder {
  Context(std::shared_ptr<const AttentionPlan> plan_, std::shared_ptr<KeyValueExchange> exchange_)
      : plan(std::move(plan_)), exchange(std::move(exchange_)) {}

  std::shared_ptr<const AttentionPlan> plan;
  std::shared_ptr<KeyValueExchange> exchange;
};

std::vector<SegmentRows> zero_gradients(const std::vector<SegmentRows>& rows, at::ScalarType dtype) {
  std::vector<SegmentRows> gradients;
  gradients.reserve(rows.size());
  for (const SegmentRows& segment : rows) {
    gradients.push_back({at::zeros_like(segment.keys, dtype), at::zeros_like(segment.values, dtype)});
  }
  return gradients;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class DilatedAttention : public torch::autograd::Function<DilatedAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const std::optional<at::Tensor>& key_mask, const c10::intrusive_ptr<Context>& context) {
    const AttentionPlan& plan = *context->plan;
    const auto bias = key_bias(key_mask, q);
    const auto options = q.options().dtype(at::toOpMathType(q.scalar_type()));
    Forward pass{q, bias, at::zeros(q.sizes(), options),
                 at::full({q.size(0), q.size(1), q.size(2)}, -infinity, options)};

    const auto fetch = context->exchange ? context->exchange->fetch(k, v) : nullptr;
    for (const Tile& tile : plan.own_tiles) {
      pass.attend(tile, k, v, plan.causal);
      if (fetch) fetch->poll();
    }
    const auto remote = fetch ? fetch->finish() : std::vector<SegmentRows>{};
    for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
      for (const Tile& tile : plan.crossings[i].tiles) pass.attend(tile, remote[i].keys, remote[i].values, false);
    }

    const auto out = pass.out.to(q.scalar_type());
    variable_list saved{q, k, v, out, pass.lse, key_mask.value_or(at::Tensor())};
    for (const SegmentRows& rows : remote) saved.insert(saved.end(), {rows.keys, rows.values});
    ctx->save_for_backward(saved);
    ctx->saved_data["context"] = c10::IValue::make_capsule(context);
    ctx->mark_non_differentiable({pass.lse});
    return {out, pass.lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    if (at::GradMode::is_enabled()) {
      throw Error("dilated attention has no second derivative: call backward without create_graph");
    }
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    const auto context = c10::static_intrusive_pointer_cast<Context>(ctx->saved_data["context"].toCapsule());
    const AttentionPlan& plan = *context->plan;
    std::vector<SegmentRows> remote;
    for (std::size_t i = 6; i < saved.size(); i += 2) remote.push_back({saved[i], saved[i + 1]});

    const auto bias = key_bias(saved[5].defined() ? std::optional(saved[5]) : std::nullopt, q);
    const auto lse = saved[4].masked_fill(saved[4].eq(-infinity), infinity);
    const auto dtype = at::toOpMathType(q.scalar_type());
    const auto out_gradient = gradients[0].contiguous();
    Backward pass{out_gradient, q, out, lse, bias, at::zeros(q.sizes(), q.options().dtype(dtype))};

    auto remote_gradients = zero_gradients(remote, dtype);
    for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
      for (const Tile& tile : plan.crossings[i].tiles) {
        pass.attend(tile, remote[i].keys, remote[i].values, false, remote_gradients[i].keys,
                    remote_gradients[i].values);
      }
    }
    const auto give_back =
        context->exchange ? context->exchange->give_back(remote_gradients, k.scalar_type()) : nullptr;
    auto k_gradient = at::zeros_like(pass.q_gradient), v_gradient = at::zeros_like(pass.q_gradient);
    for (const Tile& tile : plan.own_tiles) {
      pass.attend(tile, k, v, plan.causal, k_gradient, v_gradient);
      if (give_back) give_back->poll();
    }
    if (give_back) give_back->finish(k_gradient, v_gradient);
    const auto type = q.scalar_type();
    return {pass.q_gradient.to(type), k_gradient.to(type), v_gradient.to(type), at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
           const std::optional<at::Tensor>& key_mask) {
  const auto fail = [](const std::string& what) { throw Error("dilated attention: " + what); };
  const auto type = q.scalar_type();
  if (type != at::kFloat && type != at::kDouble && type != at::kBFloat16)
    fail("q is neither float32, float64 nor bfloat16");
  if (q.dim() != 4) fail("q is not (B, n, H, D)");
  for (const auto* tensor : {&k, &v}) {
    if (tensor->sizes() != q.sizes() || tensor->scalar_type() != type) fail("q, k and v differ in shape or dtype");
  }
  for (const auto* tensor : {&q, &k, &v}) {
    if (tensor->stride(3) != 1 && tensor->size(3) > 1) fail("the channels of a head are not contiguous");
  }
  if (q.size(1) != plan.own.size()) fail("q holds other positions than the plan");
  if (q.size(2) != plan.heads) fail("q has another number of heads than the plan");
  if (key_mask &&
      (key_mask->scalar_type() != at::kBool || key_mask->sizes() != at::IntArrayRef{q.size(0), plan.length})) {
    fail("the key mask is not a bool tensor (B, N)");
  }
}

}  // namespace

AttentionOutput dilated_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  std::shared_ptr<const AttentionPlan> plan, const std::optional<at::Tensor>& key_mask,
                                  std::shared_ptr<KeyValueExchange> exchange) {
  check(q, k, v, *plan, key_mask);
  if (plan->crossings.empty() == (exchange != nullptr)) {
    throw Error("dilated attention: an exchange is needed exactly when segments cross the own range");
  }
  const auto outputs =
      DilatedAttention::apply(q, k, v, key_mask, c10::make_intrusive<Context>(std::move(plan), std::move(exchange)));
  return {outputs[0], outputs[1]};
}

}  // namespace longnet
