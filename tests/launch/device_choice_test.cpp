// Which GPU a rank takes.

#include "launch/job/device_choice.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace longnet {
namespace {

ParallelConfig wish(ParallelConfig::Device device, bool share = false) {
  ParallelConfig parallel;
  parallel.device = device;
  parallel.share_gpu = share;
  return parallel;
}

using Device = ParallelConfig::Device;

/// A host whose ranks all see all of its GPUs.
VisibleGpus all_see(int gpus, int ranks) {
  std::vector<std::string> names;
  for (int gpu = 0; gpu < gpus; ++gpu) names.push_back("gpu-" + std::to_string(gpu));
  return VisibleGpus(static_cast<std::size_t>(ranks), names);
}

TEST(DeviceChoice, GivesEachRankItsOwnGpu) {
  for (int rank = 0; rank < 4; ++rank) {
    const auto choice = choose_gpu(wish(Device::Automatic), all_see(4, 4), rank);
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->number, rank);
    EXPECT_FALSE(choice->shared);
  }
  EXPECT_EQ(choose_gpu(wish(Device::Cuda), all_see(8, 2), 1)->number, 1);
}

TEST(DeviceChoice, TakesTheOnlyOneThatABatchSystemShows) {
  const VisibleGpus own{{"a"}, {"b"}, {"c"}};
  for (int rank = 0; rank < 3; ++rank) {
    const auto choice = choose_gpu(wish(Device::Automatic), own, rank);
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->number, 0) << "each numbers its own 0";
    EXPECT_FALSE(choice->shared);
  }
  const VisibleGpus turned{{"a", "b"}, {"b", "a"}, {"c"}};
  EXPECT_EQ(choose_gpu(wish(Device::Automatic), turned, 1)->number, 0) << "b is free";
}

TEST(DeviceChoice, FallsBackToTheCpuOnlyWhenNobodyAskedForAGpu) {
  EXPECT_FALSE(choose_gpu(wish(Device::Automatic), all_see(0, 4), 0));
  EXPECT_FALSE(choose_gpu(wish(Device::Cpu), all_see(4, 8), 0));
  EXPECT_THROW(choose_gpu(wish(Device::Cuda), all_see(0, 1), 0), ConfigError);
}

TEST(DeviceChoice, SharesAGpuOnlyOnRequest) {
  for (int rank = 0; rank < 3; ++rank) {
    try {
      choose_gpu(wish(Device::Automatic), all_see(2, 3), rank);
      FAIL() << "the ranks that have a GPU of their own must fail, too";
    } catch (const ConfigError& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("3 ranks but 2 GPUs"), std::string::npos) << what;
      EXPECT_NE(what.find("parallel.share_gpu"), std::string::npos) << "says what to do";
    }
  }
  for (int rank = 0; rank < 5; ++rank) {
    const auto choice = choose_gpu(wish(Device::Automatic, true), all_see(2, 5), rank);
    EXPECT_EQ(choice->number, rank % 2);
    EXPECT_TRUE(choice->shared);
  }
}

}  // namespace
}  // namespace longnet
