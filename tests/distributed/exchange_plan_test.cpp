// Which rows travel, at lengths that no tensor could hold here.

#include "distributed/exchange_plan.h"

#include <gtest/gtest.h>

#include <map>

namespace longnet {
namespace {

/// Positions of a parcel's first and last row of a head.
std::pair<std::int64_t, std::int64_t> ends(const CrossingSegment& crossing, const Parcel& parcel, std::size_t head) {
  const BranchHeads& heads = crossing.heads;
  const Span& rows = parcel.rows[head];
  const std::int64_t begin = crossing.segment.begin + heads.offset(static_cast<std::int64_t>(head));
  return {begin + rows.first * heads.branch.rate, begin + (rows.first + rows.count - 1) * heads.branch.rate};
}

TEST(ExchangePlan, HoldsABillionTokens) {
  const std::int64_t length = 1'000'000'007, heads = 12;
  const int ranks = 48;
  const Mixture mixture = make_mixture({2048, 268'435'456, 2'000'000'000}, {1, 32768, 262144}, HeadOffsets::Cyclic);
  const auto layout = even_layout(length, ranks);
  std::map<std::pair<int, int>, std::int64_t> sent, received;  // rows from one rank to another
  for (int rank = 0; rank < ranks; ++rank) {
    const auto plan = plan_attention(mixture, heads, true, length, layout[static_cast<std::size_t>(rank)]);
    const auto traffic = plan_exchange(plan, layout, rank, TransportChoice::Automatic);
    ASSERT_EQ(traffic.size(), plan.crossings.size());
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < traffic.size(); ++i) {
      for (const Parcel& parcel : traffic[i].sends) sent[{rank, parcel.peer}] += parcel.row_count();
      for (const Parcel& parcel : traffic[i].receives) {
        received[{parcel.peer, rank}] += parcel.row_count();
        rows += parcel.row_count();
        const Range& theirs = layout[static_cast<std::size_t>(parcel.peer)];
        for (std::size_t head = 0; head < parcel.rows.size(); ++head) {
          if (parcel.rows[head].count == 0) continue;
          const auto [first, last] = ends(plan.crossings[i], parcel, head);
          ASSERT_GE(first, theirs.begin);
          ASSERT_LT(last, theirs.end);
        }
      }
    }
    EXPECT_EQ(forward_bytes(traffic, 1, 64, 2), 2 * 2 * 64 * rows);
  }
  EXPECT_EQ(sent, received) << "what one rank sends another expects";
  EXPECT_GT(received.size(), static_cast<std::size_t>(ranks)) << "rows come from more than the neighbour";
}

TEST(ExchangePlan, CountsBytesBeyondThirtyTwoBits) {
  const std::int64_t length = 1'000'000'000, heads = 16;
  const auto layout = even_layout(length, 2);
  const auto plan = plan_attention(make_mixture({length}, {1}, HeadOffsets::Cyclic), heads, true, length, layout[1]);
  const auto traffic = plan_exchange(plan, layout, 1, TransportChoice::Unaligned);
  EXPECT_EQ(forward_bytes(traffic, 4, 128, 2), 2LL * 2 * 128 * 4 * heads * (length / 2));
}

}  // namespace
}  // namespace longnet
