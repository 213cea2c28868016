// How many threads a rank takes of cores that it may share.

#include "launch/job/threads.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace longnet {
namespace {

CoreShare cores(int first, int count) {
  CoreShare share;
  share.cores.resize(static_cast<std::size_t>(count));
  std::iota(share.cores.begin(), share.cores.end(), first);
  return share;
}

TEST(Threads, DivideCoresThatSeveralRanksMayUse) {
  EXPECT_EQ(threads_for({cores(0, 16)}, 0), 16);
  EXPECT_EQ(threads_for({cores(0, 16), cores(0, 16)}, 1), 8);
  EXPECT_EQ(threads_for({cores(0, 16), cores(0, 16), cores(0, 16)}, 0), 5);
  EXPECT_EQ(threads_for({cores(0, 8), cores(8, 8)}, 0), 8) << "ranks bound apart share nothing";
  EXPECT_EQ(threads_for({cores(0, 8), cores(4, 8)}, 0), 6) << "four of its own, four shared by two";
  EXPECT_EQ(threads_for({cores(3, 1), cores(3, 1)}, 0), 1) << "never none";
}

TEST(Threads, KeepToQuotasAndWishes) {
  auto limited = cores(0, 64);
  limited.quota = 4;
  limited.group = "/job";
  EXPECT_EQ(threads_for({limited}, 0), 4);
  EXPECT_EQ(threads_for({limited, limited}, 0), 2) << "ranks of a group share its quota";
  auto other = limited;
  other.group = "/other";
  EXPECT_EQ(threads_for({limited, other}, 0), 4);
  limited.quota = 0.5;
  EXPECT_EQ(threads_for({limited}, 0), 1);
  auto asked = cores(0, 64);
  asked.limit = 6;
  EXPECT_EQ(threads_for({asked}, 0), 6);
}

TEST(Threads, ReadTheQuotaOfAControlGroup) {
  EXPECT_DOUBLE_EQ(parse_cpu_max("200000 100000\n"), 2);
  EXPECT_DOUBLE_EQ(parse_cpu_max("50000 100000\n"), 0.5);
  EXPECT_TRUE(std::isinf(parse_cpu_max("max 100000\n")));
  EXPECT_TRUE(std::isinf(parse_cpu_max("")));
  EXPECT_FALSE(core_share().cores.empty());
}

}  // namespace
}  // namespace longnet
