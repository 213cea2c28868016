#include "core/attention/mixture.h"

#include <algorithm>

#include "core/error.h"

namespace longnet {

Mixture make_mixture(const std::vector<std::int64_t>& segments, const std::vector<std::int64_t>& rates,
                     HeadOffsets head_offsets) {
  if (segments.size() != rates.size()) {
    throw ConfigError("attention has " + std::to_string(segments.size()) + " segments but " +
                      std::to_string(rates.size()) + " rates; give one rate for each segment");
  }
  if (segments.empty()) throw ConfigError("attention has no branch; give at least one segment and its rate");
  Mixture mixture{{}, head_offsets};
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (segments[i] < 1) throw ConfigError("segment " + std::to_string(segments[i]) + " is below 1");
    if (rates[i] < 1) throw ConfigError("rate " + std::to_string(rates[i]) + " is below 1");
    mixture.branches.push_back({segments[i], rates[i]});
  }
  return mixture;
}

void require_rows_in_place(const Mixture& mixture, std::int64_t length) {
  for (const Branch& branch : mixture.branches) {
    if (branch.segment >= length || branch.segment % branch.rate == 0) continue;
    throw ConfigError(
        "torchscale puts rows at wrong positions when a rate does not divide a segment shorter than the "
        "sequence, here rate " +
        std::to_string(branch.rate) + " and segment " + std::to_string(branch.segment) + " in a sequence of " +
        std::to_string(length) +
        ": its results there cannot be reproduced in a meaningful way; without compatibility the "
        "attention is right");
  }
}

std::int64_t head_offset(std::int64_t head, std::int64_t heads, std::int64_t rate, HeadOffsets layout) {
  if (layout == HeadOffsets::Cyclic) return head % rate;
  return head / ((heads + rate - 1) / rate);
}

std::optional<UncoveredQuery> find_uncovered_query(const Mixture& mixture, std::int64_t heads, std::int64_t length) {
  const auto& branches = mixture.branches;
  if (std::any_of(branches.begin(), branches.end(), [](const Branch& branch) { return branch.rate == 1; })) return {};
  for (std::int64_t position = 0; position < length; ++position) {
    for (std::int64_t head = 0; head < heads; ++head) {
      const bool covered = std::any_of(branches.begin(), branches.end(), [&](const Branch& branch) {
        return position % branch.segment % branch.rate == head_offset(head, heads, branch.rate, mixture.head_offsets);
      });
      if (!covered) return UncoveredQuery{head, position};
    }
  }
  return {};
}

}  // namespace longnet
