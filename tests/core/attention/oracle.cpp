#include "tests/core/attention/oracle.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "tests/definition.h"

namespace longnet::test {
namespace {

/// (H, N, N): how many branches let the query (second dimension) see the key (third).
at::Tensor reach(const Mixture& mixture, std::int64_t heads, std::int64_t length, bool causal) {
  auto count = at::zeros({heads, length, length}, at::kDouble);
  auto counts = count.accessor<double, 3>();
  for (const Branch& branch : mixture.branches) {
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t offset = offset_by_definition(head, heads, branch.rate, mixture.head_offsets);
      const auto member = [&](std::int64_t p) { return p % branch.segment % branch.rate == offset; };
      for (std::int64_t query = 0; query < length; ++query) {
        for (std::int64_t key = 0; key < (causal ? query + 1 : length); ++key) {
          const bool together = query / branch.segment == key / branch.segment;
          if (together && member(query) && member(key)) counts[head][query][key] += 1;
        }
      }
    }
  }
  return count;
}

}  // namespace

OracleOutput oracle(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Mixture& mixture, bool causal,
                    const std::optional<at::Tensor>& key_mask) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto heads_first = [](const at::Tensor& tensor) { return tensor.transpose(1, 2); };
  const auto scores = at::matmul(heads_first(q), heads_first(k).transpose(2, 3)) / std::sqrt(double(q.size(3)));
  auto count = reach(mixture, q.size(2), q.size(1), causal).unsqueeze(0).to(q.device());
  if (key_mask) count = count * key_mask->to(at::kDouble).unsqueeze(1).unsqueeze(1);
  const auto alive = count.gt(0).any(-1).expand({q.size(0), -1, -1});
  const auto logits = at::where(alive.unsqueeze(-1), scores + count.log(), at::zeros_like(scores));
  const auto lse = at::where(alive, logits.logsumexp(-1), -infinity);
  const auto weights = at::where(alive.unsqueeze(-1), logits.softmax(-1), at::zeros_like(logits));
  return {at::matmul(weights, heads_first(v)).transpose(1, 2), lse.transpose(1, 2)};
}

}  // namespace longnet::test
