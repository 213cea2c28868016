#pragma once

#include <ATen/core/PhiloxRNGEngine.h>

#include <cstdint>

namespace longnet {

/// The mask of one dropout: a function of sample, position and channel alone, the same on CPU and GPU. A Philox draw
/// makes the numbers of four neighbouring channels. C++17, because nvcc compiles it.
struct DropoutMask {
  std::uint64_t key;        ///< where in the training run
  std::uint32_t threshold;  ///< random numbers below it drop their channel
  double keep;              ///< what all others are multiplied with
  std::int64_t first_position;

  static constexpr std::int64_t channels_a_draw = 4;

  /// The random numbers from draw number `draw` of a position on; `channels` is C.
  C10_HOST_DEVICE at::Philox4_32 numbers(std::int64_t sample, std::int64_t row, std::int64_t channels,
                                         std::int64_t draw) const {
    const std::int64_t draws = (channels + channels_a_draw - 1) / channels_a_draw;
    return at::Philox4_32(key, static_cast<std::uint64_t>(sample),
                          static_cast<std::uint64_t>((first_position + row) * draws + draw));
  }
};

}  // namespace longnet
