#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/attention/mixture.h"
#include "core/range.h"

/// Small definitions of the design, written out a second time: an oracle must not borrow the product's code.
namespace longnet::test {

/// The dilation offset of a head: j mod r (LongNet, section 2.3), or j / ceil(H / r) in published checkpoints.
inline std::int64_t offset_by_definition(std::int64_t head, std::int64_t heads, std::int64_t rate, HeadOffsets layout) {
  if (layout == HeadOffsets::Cyclic) return head % rate;
  std::int64_t sharing = 0;  // heads that share an offset: the least number of which `rate` offsets suffice for all
  while (sharing * rate < heads) ++sharing;
  return head / sharing;
}

/// Which positions each rank holds: as equal shares as can be, the first ranks one more where they cannot be equal.
inline std::vector<Range> shares_by_definition(std::int64_t length, int ranks) {
  std::vector<Range> shares;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const auto begin = [&](std::int64_t r) { return r * (length / ranks) + std::min(r, length % ranks); };
    shares.push_back({begin(rank), begin(rank + 1)});
  }
  return shares;
}

}  // namespace longnet::test
