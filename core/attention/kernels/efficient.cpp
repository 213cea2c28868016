#include <ATen/ATen.h>

#include "core/attention/kernels/kernels.h"

namespace longnet::kernels {
namespace {

constexpr std::int64_t bias_alignment = 16, lse_alignment = 32;

std::int64_t rounded_up(std::int64_t count, std::int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

/// The bias in dense rows that begin at aligned addresses; all queries of a head share a row.
OptionalBias mask(const OptionalBias& key_bias, std::int64_t rows) {
  if (!key_bias) return {};
  const std::int64_t keys = key_bias->size(3);
  auto padded =
      at::empty({key_bias->size(0), key_bias->size(1), 1, rounded_up(keys, bias_alignment)}, key_bias->options());
  auto dense = padded.slice(3, 0, keys);
  dense.copy_(*key_bias);
  return dense.expand({-1, -1, rows, -1});
}

/// (batch, heads, rows, D) in the memory layout (batch, rows, heads, D), which the backward kernel takes for granted.
at::Tensor rows_first(const at::Tensor& tensor) {
  return tensor.transpose(1, 2).contiguous().transpose(1, 2);
}

/// lse in rows that begin at aligned addresses. +inf, where no query is, makes probabilities of 0.
at::Tensor padded_lse(const at::Tensor& lse) {
  const std::int64_t rows = lse.size(2);
  auto padded = at::full({lse.size(0), lse.size(1), rounded_up(rows, lse_alignment)},
                         std::numeric_limits<double>::infinity(), lse.options());
  padded.slice(2, 0, rows).copy_(lse);
  return padded;
}

}  // namespace

KernelOutput efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                       const OptionalBias& key_bias) {
  const auto result =
      at::_scaled_dot_product_efficient_attention(q, k, v, mask(key_bias, q.size(2)),
                                                  /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, causal);
  KernelOutput output{std::get<0>(result), std::get<1>(result).slice(2, 0, q.size(2))};
  clear_dead_rows(output, key_bias, causal);
  return output;
}

KernelGradients efficient_backward(const BackwardCall& call) {
  const auto bias = mask(call.key_bias, call.q.size(2)).value_or(at::Tensor());
  const auto state = at::empty({}, at::kLong);
  auto [q, k, v, bias_gradient] = at::_scaled_dot_product_efficient_attention_backward(
      rows_first(call.out_gradient), call.q, call.k, call.v, bias, rows_first(call.out), padded_lse(call.lse), state,
      state, /*dropout_p=*/0.0, {true, true, true, false}, call.causal);
  return {q, k, v};
}

}  // namespace longnet::kernels
