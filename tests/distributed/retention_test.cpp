// Which checkpoints go.

#include <gtest/gtest.h>

#include "distributed/checkpoint_folder.h"

namespace longnet {
namespace {

using Steps = std::set<std::int64_t>;

/// Newest first, as they are listed.
const std::vector<CheckpointRecord> seven{{70, {}}, {60, 0.5}, {50, 0.3}, {40, {}}, {30, 0.3}, {20, 0.2}, {10, 0.9}};

TEST(Retention, KeepsTheNewest) {
  EXPECT_EQ(superseded(seven, {.newest = 3}), (Steps{10, 20, 30, 40}));
  EXPECT_EQ(superseded(seven, {.newest = 1}), (Steps{10, 20, 30, 40, 50, 60}));
  EXPECT_EQ(superseded(seven, {.newest = 7}), Steps{});
  EXPECT_EQ(superseded(seven, {.newest = 100}), Steps{});
  EXPECT_EQ(superseded({}, {.newest = 1}), Steps{});
}

TEST(Retention, KeepsMultiplesBesides) {
  EXPECT_EQ(superseded(seven, {.newest = 1, .every_steps = 20}), (Steps{10, 30, 50}));
}

TEST(Retention, KeepsTheBestBesides) {
  EXPECT_EQ(superseded(seven, {.newest = 1, .best = 1}), (Steps{10, 30, 40, 50, 60}));
  EXPECT_EQ(superseded(seven, {.newest = 1, .best = 2}), (Steps{10, 30, 40, 60})) << "of equal ones the newer";
  EXPECT_EQ(superseded(seven, {.newest = 2, .best = 1}), (Steps{10, 30, 40, 50})) << "the newest need not be good";
  EXPECT_EQ(superseded(seven, {.newest = 1, .best = 100}), (Steps{40})) << "one that was not evaluated is never best";
  EXPECT_EQ(superseded(seven, {.newest = 1, .every_steps = 40, .best = 1}), (Steps{10, 30, 50, 60}));
}

}  // namespace
}  // namespace longnet
