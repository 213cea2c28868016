#include "core/attention/query_weights.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace longnet {
namespace {

bool takes_part(const BranchHeads& heads, std::int64_t position, std::int64_t head) {
  return (position - segment_begin(heads.branch, position)) % heads.branch.rate == heads.offset(head);
}

}  // namespace

at::Tensor key_counts(const AttentionPlan& plan, std::int64_t position) {
  auto counts = at::zeros({plan.own.size(), plan.heads}, at::kDouble);
  for (const Branch& branch : plan.mixture.branches) {
    const BranchHeads heads{branch, plan.heads, plan.mixture.head_offsets};
    const std::int64_t begin = segment_begin(branch, position);
    const std::int64_t end = plan.causal ? position + 1 : std::min(begin + branch.segment, plan.length);
    const Range keys{std::max(begin, plan.own.begin), std::min(end, plan.own.end)};
    if (keys.size() <= 0) continue;
    const auto places = places_of(heads, begin, rows_in(heads, begin, keys), plan.own.begin);
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      const Span& span = places[static_cast<std::size_t>(head)];
      if (span.count == 0 || !takes_part(heads, position, head)) continue;
      const std::int64_t past = span.first + (span.count - 1) * branch.rate + 1;
      counts.select(1, head).slice(0, span.first, past, branch.rate).add_(1);
    }
  }
  return counts;
}

at::Tensor zero_key_counts(const AttentionPlan& plan, std::int64_t position) {
  auto counts = at::zeros({plan.heads}, at::kDouble);
  if (!plan.mixture.zero_keys || plan.causal) return counts;
  for (const Branch& branch : plan.mixture.branches) {
    const BranchHeads heads{branch, plan.heads, plan.mixture.head_offsets};
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      const ZeroKeys keys = zero_keys(heads, plan.length, head);
      if (position >= keys.segment_begin && takes_part(heads, position, head)) {
        counts[head] += static_cast<double>(keys.count);
      }
    }
  }
  return counts;
}

}  // namespace longnet
