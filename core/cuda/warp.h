#pragma once

namespace longnet::cuda {

/// Threads that run in step and can read each other's registers, and how many such groups a block has at most. C++17, because nvcc
/// compiles it.
constexpr int warp = 32, most_warps = 32;
constexpr unsigned all_lanes = 0xffffffffU;

}  // namespace longnet::cuda
