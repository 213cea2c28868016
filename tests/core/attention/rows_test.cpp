// The index arithmetic, against a walk over all positions, and at a billion tokens.

#include "core/attention/rows.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "core/attention/plan.h"
#include "core/error.h"
#include "tests/definition.h"

namespace longnet {
namespace {

TEST(HeadOffset, FollowsBothLayouts) {
  EXPECT_EQ(head_offset(5, 6, 4, HeadOffsets::Cyclic), 1);
  EXPECT_EQ(head_offset(5, 6, 4, HeadOffsets::Block), 2) << "ceil(6 / 4) = 2 heads share an offset";
  EXPECT_EQ(head_offset(1, 2, 8, HeadOffsets::Cyclic), 1);
}

TEST(Mixture, RefusesWhatCannotBe) {
  EXPECT_THROW(make_mixture({64, 128}, {1}, HeadOffsets::Cyclic), ConfigError);
  EXPECT_THROW(make_mixture({}, {}, HeadOffsets::Cyclic), ConfigError);
  EXPECT_THROW(make_mixture({0}, {1}, HeadOffsets::Cyclic), ConfigError);
  EXPECT_THROW(make_mixture({64}, {0}, HeadOffsets::Cyclic), ConfigError);
}

TEST(Mixture, KnowsWhichQueriesItLeavesOut) {
  EXPECT_FALSE(find_uncovered_query(make_mixture({64}, {1}, HeadOffsets::Cyclic), 4, 1000));
  const auto uncovered = find_uncovered_query(make_mixture({16, 64}, {2, 4}, HeadOffsets::Cyclic), 4, 64);
  ASSERT_TRUE(uncovered);
  EXPECT_EQ(uncovered->position, 0);
  EXPECT_EQ(uncovered->head, 1);
}

/// All (query, key) pairs of a plan, as counts, found by walking its tiles.
std::map<std::array<std::int64_t, 3>, int> walk(const AttentionPlan& plan) {
  std::map<std::array<std::int64_t, 3>, int> pairs;
  const auto place = [](const RowView& view, std::int64_t segment, std::int64_t head, std::int64_t row) {
    return view.first + segment * view.segment_step + head * view.head_step + row * view.row_step;
  };
  const auto visit = [&](const Tile& tile, bool causal) {
    for (std::int64_t s = 0; s < tile.segments; ++s) {
      for (std::int64_t h = 0; h < tile.heads.count; ++h) {
        for (std::int64_t i = 0; i < tile.queries.count; ++i) {
          for (std::int64_t j = 0; j < (causal ? i + 1 : tile.keys.count); ++j) {
            ++pairs[{tile.heads.first + h * tile.heads.step, plan.own.begin + place(tile.queries, s, h, i),
                     place(tile.key_positions, s, h, j)}];
          }
        }
      }
    }
  };
  for (const Tile& tile : plan.own_tiles) visit(tile, plan.causal);
  for (const auto& segment : plan.crossings) {
    for (const Tile& tile : segment.tiles) visit(tile, false);
  }
  return pairs;
}

TEST(Plan, ReachesExactlyTheKeysOfTheDefinition) {
  std::mt19937 random(7);
  const auto number = [&](int low, int high) { return std::uniform_int_distribution<std::int64_t>(low, high)(random); };
  for (int trial = 0; trial < 100; ++trial) {
    const std::int64_t length = number(1, 60), heads = number(1, 6), begin = number(0, static_cast<int>(length) - 1);
    const Range own{begin, number(static_cast<int>(begin) + 1, static_cast<int>(length))};
    const bool causal = number(0, 1) == 0;
    const Mixture mixture{{{number(1, 70), number(1, 8)}, {number(1, 70), number(1, 8)}},
                          number(0, 1) == 0 ? HeadOffsets::Cyclic : HeadOffsets::Block};
    std::map<std::array<std::int64_t, 3>, int> expected;
    for (const Branch& branch : mixture.branches) {
      for (std::int64_t head = 0; head < heads; ++head) {
        const std::int64_t offset = test::offset_by_definition(head, heads, branch.rate, mixture.head_offsets);
        const auto member = [&](std::int64_t p) { return p % branch.segment % branch.rate == offset; };
        for (std::int64_t query = own.begin; query < own.end; ++query) {
          for (std::int64_t key = 0; key < (causal ? query + 1 : length); ++key) {
            if (query / branch.segment == key / branch.segment && member(query) && member(key)) {
              ++expected[{head, query, key}];
            }
          }
        }
      }
    }
    const auto plan = plan_attention(mixture, heads, causal, length, own);
    ASSERT_EQ(walk(plan), expected) << "trial " << trial;
    std::int64_t pairs = 0;
    for (const auto& [pair, count] : expected) pairs += count;
    EXPECT_EQ(score_pairs(plan), pairs);
  }
}

TEST(Plan, ServesManyHeadsWithFewCalls) {
  const auto calls = [](std::int64_t rate, HeadOffsets layout) {
    return plan_attention(make_mixture({2304}, {rate}, layout), 12, true, 9216, {0, 9216}).own_tiles.size();
  };
  for (const auto layout : {HeadOffsets::Cyclic, HeadOffsets::Block}) {
    EXPECT_EQ(calls(1, layout), 1U);
    EXPECT_EQ(calls(2, layout), 2U);
    EXPECT_EQ(calls(4, layout), 3U);
    EXPECT_EQ(calls(6, layout), 2U);
    EXPECT_EQ(calls(12, layout), 1U);
  }
}

TEST(Plan, HoldsABillionTokens) {
  const std::int64_t length = 1'000'000'007, heads = 12, ranks = 64;
  const Mixture mixture = make_mixture({2048, 65536, 4'194'304, 268'435'456, 2'000'000'000}, {1, 6, 512, 32768, 262144},
                                       HeadOffsets::Cyclic);
  std::int64_t rows = 0;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const Range own{length * rank / ranks, length * (rank + 1) / ranks};
    const auto plan = plan_attention(mixture, heads, true, length, own);
    EXPECT_LT(plan.own_tiles.size(), 400U);
    for (const Tile& tile : plan.own_tiles) {
      const auto& view = tile.queries;
      const std::int64_t last = view.first + (tile.segments - 1) * view.segment_step +
                                (tile.heads.count - 1) * std::max<std::int64_t>(view.head_step, 0) +
                                (view.count - 1) * view.row_step;
      ASSERT_GE(view.first, 0);
      ASSERT_LT(last, own.size());
      rows += tile.segments * tile.heads.count * view.count;
    }
    for (const auto& crossing : plan.crossings) ASSERT_LE(crossing.buffer_rows, 8192 + 11000);
  }
  std::int64_t expected = 0;  // each branch, head and segment on its own
  for (const Branch& branch : mixture.branches) {
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t begin = 0; begin < length; begin += branch.segment) {
        const std::int64_t size = std::min(branch.segment, length - begin), offset = head % branch.rate;
        if (offset < size) expected += (size - offset + branch.rate - 1) / branch.rate;
      }
    }
  }
  EXPECT_EQ(rows, expected);
}

}  // namespace
}  // namespace longnet
