#include "core/attention/dilated_attention.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "core/attention/kernel.h"
#include "core/attention/merged_rows.h"
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

/// Attention of own queries to keys, which are own or fetched, joined over all tiles.
struct Forward {
  const at::Tensor& q;
  const std::optional<at::Tensor>& bias;
  MergedRows merged;

  void attend(const Tile& tile, const at::Tensor& keys, const at::Tensor& values, bool causal) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) {
      merged.add(tile, call,
                 kernel_forward(tile_view(q, tile, tile.queries, call), tile_view(keys, tile, tile.keys, call),
                                tile_view(values, tile, tile.keys, call), causal, tile_bias(bias, tile, call)));
    }
  }
};

/// Gradients of the keys and values of one range or one segment.
struct KeyValueSums {
  SummedRows keys;
  SummedRows values;
};

/// The same tiles backward. Each call gets the mixture's out and lse, which makes its gradient that of the whole
/// softmax.
struct Backward {
  const at::Tensor& out_gradient;
  const at::Tensor& q;
  const at::Tensor& out;
  const at::Tensor& lse;  ///< +inf where a query has no key
  const std::optional<at::Tensor>& bias;
  SummedRows q_gradient;

  void attend(const Tile& tile, const at::Tensor& keys, const at::Tensor& values, bool causal, KeyValueSums& sums) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) {
      const auto queries = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.queries, call); };
      const auto rows = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.keys, call); };
      const auto part = kernel_backward(queries(out_gradient), queries(q), rows(keys), rows(values), queries(out),
                                        queries(lse), causal, tile_bias(bias, tile, call));
      q_gradient.add(tile, tile.queries, call, part.q);
      sums.keys.add(tile, tile.keys, call, part.k);
      sums.values.add(tile, tile.keys, call, part.v);
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

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class DilatedAttention : public torch::autograd::Function<DilatedAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const std::optional<at::Tensor>& key_mask, const c10::intrusive_ptr<Context>& context) {
    const AttentionPlan& plan = *context->plan;
    const auto bias = key_bias(key_mask, q);
    Forward pass{q, bias, MergedRows(q)};

    const auto fetch = context->exchange ? context->exchange->fetch(k, v) : nullptr;
    for (const Tile& tile : plan.own_tiles) {
      pass.attend(tile, k, v, plan.causal);
      if (fetch) fetch->poll();
    }
    const auto remote = fetch ? fetch->finish() : std::vector<SegmentRows>{};
    for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
      for (const Tile& tile : plan.crossings[i].tiles) pass.attend(tile, remote[i].keys, remote[i].values, false);
    }

    const auto [out, lse] = pass.merged.finish();
    variable_list saved{q, k, v, out, lse, key_mask.value_or(at::Tensor())};
    for (const SegmentRows& rows : remote) saved.insert(saved.end(), {rows.keys, rows.values});
    ctx->save_for_backward(saved);
    ctx->saved_data["context"] = c10::IValue::make_capsule(context);
    ctx->mark_non_differentiable({lse});
    return {out, lse};
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
    const auto type = q.scalar_type();
    const auto out_gradient = gradients[0].contiguous();
    Backward pass{out_gradient, q, out, lse, bias, SummedRows(q)};

    std::vector<SegmentRows> remote_gradients;
    for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
      KeyValueSums sums{SummedRows(remote[i].keys), SummedRows(remote[i].values)};
      for (const Tile& tile : plan.crossings[i].tiles) {
        pass.attend(tile, remote[i].keys, remote[i].values, false, sums);
      }
      const auto wide = at::toOpMathType(type);
      remote_gradients.push_back({sums.keys.finish(wide), sums.values.finish(wide)});
    }
    const auto give_back = context->exchange ? context->exchange->give_back(remote_gradients, type) : nullptr;
    KeyValueSums sums{SummedRows(k), SummedRows(v)};
    for (const Tile& tile : plan.own_tiles) {
      pass.attend(tile, k, v, plan.causal, sums);
      if (give_back) give_back->poll();
    }
    if (!give_back) return {pass.q_gradient.finish(type), sums.keys.finish(type), sums.values.finish(type), {}, {}};
    const auto wide = at::toOpMathType(type);
    auto k_gradient = sums.keys.finish(wide), v_gradient = sums.values.finish(wide);
    give_back->finish(k_gradient, v_gradient);
    return {pass.q_gradient.finish(type), k_gradient.to(type), v_gradient.to(type), {}, {}};
  }
};

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
           const std::optional<at::Tensor>& key_mask) {
  const auto fail = [](const std::string& what) { throw Error("dilated attention: " + what); };
  const auto type = q.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  if (!known && !(type == at::kHalf && q.is_cuda())) {
    fail("q is neither float32, float64 nor bfloat16 (or, on a GPU, float16)");
  }
  if (q.dim() != 4) fail("q is not (B, n, H, D)");
  for (const auto* tensor : {&k, &v}) {
    if (tensor->sizes() != q.sizes() || tensor->scalar_type() != type || tensor->device() != q.device()) {
      fail("q, k and v differ in shape, dtype or device");
    }
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
