#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <algorithm>
#include <cmath>

#include "core/attention/kernels/kernels.h"

namespace longnet::kernels {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Rows that are worked on at a time: bounds the memory of their scores.
std::int64_t rows_at_a_time(const at::Tensor& q, const at::Tensor& k) {
  constexpr std::int64_t most_scores = std::int64_t{1} << 26;
  return std::max<std::int64_t>(1, most_scores / (q.size(0) * q.size(1) * k.size(2)));
}

/// Calls visitor(begin, end) for one chunk of rows after another.
void for_chunks(const at::Tensor& q, const at::Tensor& k, const auto& visitor) {
  const std::int64_t rows = q.size(2), chunk = rows_at_a_time(q, k);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) visitor(begin, std::min(begin + chunk, rows));
}

double scale(const at::Tensor& q) {
  return 1 / std::sqrt(static_cast<double>(q.size(3)));
}

/// Scores of the rows from `first` on: (batch, heads, rows, keys), -inf for keys that a row does not see.
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, std::int64_t first, bool causal,
                  const OptionalBias& key_bias) {
  auto result = at::matmul(q, k.transpose(-2, -1)).mul_(scale(q));
  if (key_bias) result.add_(key_bias->to(result.scalar_type()));
  if (causal) {
    const auto row = at::arange(first, first + q.size(2), q.options().dtype(at::kLong)).unsqueeze(1);
    const auto key = at::arange(k.size(2), q.options().dtype(at::kLong));
    result.masked_fill_(key.gt(row), -infinity);
  }
  return result;
}

}  // namespace

KernelOutput plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                   const OptionalBias& key_bias) {
  const auto dtype = at::toOpMathType(q.scalar_type());
  const auto wide_q = q.to(dtype), wide_k = k.to(dtype), wide_v = v.to(dtype);
  KernelOutput output{at::empty(q.sizes(), q.options()), at::empty(q.sizes().slice(0, 3), q.options().dtype(dtype))};
  for_chunks(q, k, [&](std::int64_t begin, std::int64_t end) {
    const auto chunk = scores(wide_q.slice(2, begin, end), wide_k, begin, causal, key_bias);
    const auto lse = chunk.logsumexp(-1);
    output.lse.slice(2, begin, end).copy_(lse);
    const auto normalizer = lse.masked_fill(lse.eq(-infinity), infinity).unsqueeze(-1);
    output.out.slice(2, begin, end).copy_(at::matmul((chunk - normalizer).exp_(), wide_v));
  });
  return output;
}

KernelGradients plain_backward(const BackwardCall& call) {
  const auto dtype = at::toOpMathType(call.q.scalar_type());
  const auto q = call.q.to(dtype), k = call.k.to(dtype), v = call.v.to(dtype);
  const auto out_gradient = call.out_gradient.to(dtype);
  const auto delta = (out_gradient * call.out.to(dtype)).sum(-1, /*keepdim=*/true);
  auto q_gradient = at::empty_like(q);
  auto k_gradient = at::zeros_like(k), v_gradient = at::zeros_like(v);
  for_chunks(q, k, [&](std::int64_t begin, std::int64_t end) {
    const auto part = [&](const at::Tensor& tensor) { return tensor.slice(2, begin, end); };
    const auto probability =
        (scores(part(q), k, begin, call.causal, call.key_bias) - part(call.lse).unsqueeze(-1)).exp_();
    v_gradient.add_(at::matmul(probability.transpose(-2, -1), part(out_gradient)));
    const auto score_gradient =
        at::matmul(part(out_gradient), v.transpose(-2, -1)).sub_(part(delta)).mul_(probability).mul_(scale(q));
    part(q_gradient).copy_(at::matmul(score_gradient, k));
    k_gradient.add_(at::matmul(score_gradient.transpose(-2, -1), part(q)));
  });
  const auto narrow = [&](const at::Tensor& tensor) { return tensor.to(call.q.scalar_type()); };
  return {narrow(q_gradient), narrow(k_gradient), narrow(v_gradient)};
}

}  // namespace longnet::kernels
