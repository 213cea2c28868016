// Which GPU a rank takes.

#include "launch/device_choice.h"

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

TEST(DeviceChoice, GivesEachRankItsOwnGpu) {
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(choose_gpu(wish(Device::Automatic), {4, rank, 4}), rank);
  EXPECT_EQ(choose_gpu(wish(Device::Cuda), {8, 1, 2}), 1);
}

TEST(DeviceChoice, FallsBackToTheCpuOnlyWhenNobodyAskedForAGpu) {
  EXPECT_EQ(choose_gpu(wish(Device::Automatic), {0, 0, 4}), std::nullopt);
  EXPECT_EQ(choose_gpu(wish(Device::Cpu), {4, 0, 8}), std::nullopt);
  EXPECT_THROW(choose_gpu(wish(Device::Cuda), {0, 0, 1}), ConfigError);
}

TEST(DeviceChoice, SharesAGpuOnlyOnRequest) {
  try {
    choose_gpu(wish(Device::Automatic), {2, 0, 3});
    FAIL();
  } catch (const ConfigError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("3 ranks but 2 GPUs"), std::string::npos) << what;
    EXPECT_NE(what.find("parallel.share_gpu"), std::string::npos) << "says what to do";
  }
  for (int rank = 0; rank < 5; ++rank) EXPECT_EQ(choose_gpu(wish(Device::Automatic, true), {2, rank, 5}), rank % 2);
}

}  // namespace
}  // namespace longnet
