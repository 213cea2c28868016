#include "core/attention/query_weights.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace longnet {
namespace {

/// Adds `value` to `counts` (places, H) at a head's rows inside `positions`, a part of the segment that begins at
/// `segment`. The first place is position `origin`.
void add_at_rows(at::Tensor& counts, const BranchHeads& heads, std::int64_t head, std::int64_t segment, Range positions,
                 std::int64_t origin, double value) {
  if (positions.size() <= 0 || value == 0) return;
  const auto places = places_of(heads, segment, rows_in(heads, segment, positions), origin);
  const Span& span = places[static_cast<std::size_t>(head)];
  if (span.count == 0) return;
  const std::int64_t rate = heads.branch.rate;
  counts.select(1, head).slice(0, span.first, span.first + (span.count - 1) * rate + 1, rate).add_(value);
}

}  // namespace

at::Tensor key_counts(const AttentionPlan& plan, std::int64_t position) {
  auto counts = at::zeros({plan.own.size(), plan.heads}, at::kDouble);
  for (const Branch& branch : plan.mixture.branches) {
    const BranchHeads heads{branch, plan.heads, plan.mixture.head_offsets};
    const std::int64_t begin = segment_begin(branch, position);
    const std::int64_t end = plan.causal ? position + 1 : std::min(begin + branch.segment, plan.length);
    const Range keys = overlap({begin, end}, plan.own);
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      if ((position - begin) % branch.rate != heads.offset(head)) continue;
      add_at_rows(counts, heads, head, begin, keys, plan.own.begin, 1);
    }
  }
  return counts;
}

at::Tensor zero_key_counts(const AttentionPlan& plan, Range queries) {
  auto counts = at::zeros({queries.size(), plan.heads}, at::kDouble);
  if (!plan.mixture.zero_keys || plan.causal) return counts;
  for (const Branch& branch : plan.mixture.branches) {
    const BranchHeads heads{branch, plan.heads, plan.mixture.head_offsets};
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      const ZeroKeys keys = zero_keys(heads, plan.length, head);
      const Range part{std::max(queries.begin, keys.segment_begin), queries.end};
      add_at_rows(counts, heads, head, keys.segment_begin, part, queries.begin, static_cast<double>(keys.count));
    }
  }
  return counts;
}

}  // namespace longnet
