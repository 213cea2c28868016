#include "core/attention/attention_pass.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "core/attention/kernel.h"
#include "core/attention/merged_rows.h"
#include "core/attention/query_weights.h"
#include "core/attention/views.h"
#include "core/cuda/side_streams.h"
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

/// Makes all kernel calls of some tiles, for a batch of so many sequences; beside each other on a GPU. Their results are taken in the
/// same order everywhere.
void for_each_call(const at::Tensor& q, const std::vector<Tile>& tiles,
                   const std::function<void(const Tile& tile, std::int64_t call)>& work) {
  std::vector<std::pair<const Tile*, std::int64_t>> calls;
  for (const Tile& tile : tiles) {
    for (std::int64_t call = 0; call < call_count(q.size(0), tile); ++call) calls.emplace_back(&tile, call);
  }
  const auto count = static_cast<std::int64_t>(calls.size());
  const auto make = [&](std::int64_t number) {
    const auto& [tile, call] = calls[static_cast<std::size_t>(number)];
    work(*tile, call);
  };
  if (q.is_cuda()) return cuda::on_side_streams(q.device(), count, make);
  for (std::int64_t number = 0; number < count; ++number) make(number);
}

/// Attention of own queries to keys, which are own or fetched, joined over all tiles.
struct Forward {
  const at::Tensor& q;
  const std::optional<at::Tensor>& bias;
  MergedRows merged;

  void attend(const Tile& tile, std::int64_t call, const at::Tensor& keys, const at::Tensor& values, bool causal) {
    merged.add(tile, call,
               kernel_forward(tile_view(q, tile, tile.queries, call), tile_view(keys, tile, tile.keys, call),
                              tile_view(values, tile, tile.keys, call), causal, tile_bias(bias, tile, call)));
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

  void attend(const Tile& tile, std::int64_t call, const at::Tensor& keys, const at::Tensor& values, bool causal,
              KeyValueSums& sums) {
    const auto queries = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.queries, call); };
    const auto rows = [&](const at::Tensor& tensor) { return tile_view(tensor, tile, tile.keys, call); };
    const auto part = kernel_backward(queries(out_gradient), queries(q), rows(keys), rows(values), queries(out),
                                      queries(lse), causal, tile_bias(bias, tile, call));
    q_gradient.add(tile, tile.queries, call, part.q);
    sums.keys.add(tile, tile.keys, call, part.k);
    sums.values.add(tile, tile.keys, call, part.v);
  }
};

/// Takes zero keys into the softmax: they weigh e^0 each and add nothing.
void add_zero_keys(KernelOutput& result, const AttentionPlan& plan) {
  const auto keys = zero_key_counts(plan, plan.own).log_().to(result.lse.options());
  const auto lse = at::logaddexp(result.lse, keys);
  const auto weight = (result.lse - lse).exp().masked_fill_(result.lse.eq(-infinity), 0);
  result.out.mul_(weight.unsqueeze(-1));
  result.lse = lse;
}

}  // namespace

void require_valid(const AttentionInputs& inputs) {
  const auto& [q, k, v, plan, key_mask, exchange] = inputs;
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
  if (plan.crossings.empty() == (exchange != nullptr)) {
    fail("an exchange is needed exactly when segments cross the own range");
  }
}

AttentionResult attention_forward(const AttentionInputs& inputs) {
  const auto& [q, k, v, plan, key_mask, exchange] = inputs;
  const auto bias = key_bias(key_mask, q);
  Forward pass{q, bias, MergedRows(q)};

  const auto fetch = exchange != nullptr ? exchange->fetch(k, v) : nullptr;
  for_each_call(q, plan.own_tiles, [&](const Tile& tile, std::int64_t call) {
    pass.attend(tile, call, k, v, plan.causal);
    if (fetch) fetch->poll();
  });
  auto remote = fetch ? fetch->finish() : std::vector<SegmentRows>{};
  for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
    for_each_call(q, plan.crossings[i].tiles, [&](const Tile& tile, std::int64_t call) {
      pass.attend(tile, call, remote[i].keys, remote[i].values, false);
    });
  }
  KernelOutput result = pass.merged.finish();
  if (plan.mixture.zero_keys && !plan.causal) add_zero_keys(result, plan);
  return {result.out, result.lse, std::move(remote)};
}

AttentionGradients attention_backward(const at::Tensor& out_gradient, const AttentionInputs& inputs,
                                      const AttentionResult& result) {
  const auto& [q, k, v, plan, key_mask, exchange] = inputs;
  const auto bias = key_bias(key_mask, q);
  const auto lse = result.lse.masked_fill(result.lse.eq(-infinity), infinity);
  const auto type = q.scalar_type(), wide = at::toOpMathType(type);
  const auto dense_gradient = out_gradient.contiguous();
  Backward pass{dense_gradient, q, result.out, lse, bias, SummedRows(q)};

  std::vector<SegmentRows> remote_gradients;
  for (std::size_t i = 0; i < plan.crossings.size(); ++i) {
    const SegmentRows& remote = result.remote[i];
    KeyValueSums sums{SummedRows(remote.keys), SummedRows(remote.values)};
    for_each_call(q, plan.crossings[i].tiles, [&](const Tile& tile, std::int64_t call) {
      pass.attend(tile, call, remote.keys, remote.values, false, sums);
    });
    remote_gradients.push_back({sums.keys.finish(wide), sums.values.finish(wide)});
  }
  const auto give_back = exchange != nullptr ? exchange->give_back(remote_gradients, type) : nullptr;
  KeyValueSums sums{SummedRows(k), SummedRows(v)};
  for_each_call(q, plan.own_tiles, [&](const Tile& tile, std::int64_t call) {
    pass.attend(tile, call, k, v, plan.causal, sums);
    if (give_back) give_back->poll();
  });
  if (!give_back) return {pass.q_gradient.finish(type), sums.keys.finish(type), sums.values.finish(type)};
  auto k_gradient = sums.keys.finish(wide), v_gradient = sums.values.finish(wide);
  give_back->finish(k_gradient, v_gradient);
  return {pass.q_gradient.finish(type), k_gradient.to(type), v_gradient.to(type)};
}

}  // namespace longnet
