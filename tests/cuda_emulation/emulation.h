#pragma once

#include <c10/core/Device.h>
#include <math.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

/// What the project's CUDA sources need of CUDA and of LibTorch's CUDA headers, for a machine without either: each thread of a block
/// is a thread, blocks run one after another. docs/decisions.md says what that cannot show.

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's names
#define __global__
#define __device__
#define __host__
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)
// NOLINTEND(bugprone-reserved-identifier)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}  // NOLINT: as CUDA has it
};

namespace emulation {

constexpr int warp_size = 32;

/// 32 threads that exchange values.
struct Warp {
  explicit Warp(int lanes) : barrier(lanes) {}
  std::barrier<> barrier;
  std::array<std::array<unsigned char, 16>, warp_size> slots{};
};

struct Block {
  explicit Block(unsigned threads) : barrier(threads) {
    for (unsigned first = 0; first < threads; first += warp_size) {
      warps.push_back(std::make_unique<Warp>(static_cast<int>(std::min<unsigned>(warp_size, threads - first))));
    }
  }
  std::barrier<> barrier;
  std::vector<std::unique_ptr<Warp>> warps;
};

/// Where a thread is.
struct Place {
  dim3 thread, block, block_size, grid_size;
  Block* of = nullptr;

  Warp& warp() const { return *of->warps[thread.x / warp_size]; }
  int lane() const { return static_cast<int>(thread.x) % warp_size; }
};
inline thread_local Place place;

/// Which blocks of a grid run, by x: a test of the last block of a large grid need not run all others.
struct OnlyBlocks {
  std::optional<unsigned> first;
};
inline OnlyBlocks only_blocks;

/// The same threads for all blocks: making them is the most of the work.
inline void launch(dim3 grid, dim3 threads, const std::function<void()>& kernel) {
  std::barrier<> together(static_cast<std::ptrdiff_t>(threads.x));
  std::unique_ptr<Block> block;
  const auto run = [&](unsigned thread) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = only_blocks.first.value_or(0); x < grid.x; ++x) {
        if (thread == 0) block = std::make_unique<Block>(threads.x);
        together.arrive_and_wait();
        place = {dim3(thread, 0, 0), dim3(x, y, 0), threads, grid, block.get()};
        kernel();
        place.warp().barrier.arrive_and_drop();  // nobody waits for who has returned
        block->barrier.arrive_and_drop();
        together.arrive_and_wait();
      }
    }
  };
  std::vector<std::jthread> running;
  for (unsigned thread = 0; thread < threads.x; ++thread) running.emplace_back(run, thread);
}

/// The value of another lane of the warp. All lanes that still run must take part.
template <typename T>
T of_lane(T mine, int lane) {
  static_assert(sizeof(T) <= 16);
  Warp& warp = place.warp();
  std::memcpy(warp.slots[static_cast<std::size_t>(place.lane())].data(), &mine, sizeof mine);
  warp.barrier.arrive_and_wait();
  T other;
  std::memcpy(&other, warp.slots[static_cast<std::size_t>(lane)].data(), sizeof other);
  warp.barrier.arrive_and_wait();
  return other;
}

struct DeviceProperties {
  int multiProcessorCount = 3;
};

}  // namespace emulation

#define threadIdx (::emulation::place.thread)
#define blockIdx (::emulation::place.block)
#define blockDim (::emulation::place.block_size)
#define gridDim (::emulation::place.grid_size)

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's names
inline void __syncthreads() {
  emulation::place.of->barrier.arrive_and_wait();
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int distance) {
  return emulation::of_lane(value, emulation::place.lane() ^ distance);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane, int width = emulation::warp_size) {
  return emulation::of_lane(value, emulation::place.lane() / width * width + lane % width);
}
// NOLINTEND(bugprone-reserved-identifier)

using std::min;
inline float rsqrt(float x) {
  return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1 / std::sqrt(x);
}

// LibTorch's side.
namespace c10::cuda {
struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
  ~CUDAGuard() {}  // NOLINT: a guard is used by being there
};
inline int getCurrentCUDAStream() {
  return 0;
}
}  // namespace c10::cuda
namespace at::cuda {
inline const emulation::DeviceProperties* getCurrentDeviceProperties() {
  static const emulation::DeviceProperties properties;
  return &properties;
}
}  // namespace at::cuda
#define C10_CUDA_KERNEL_LAUNCH_CHECK() static_cast<void>(0)
