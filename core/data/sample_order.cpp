#include "core/data/sample_order.h"

#include <bit>

#include "core/random.h"

namespace longnet {

std::int64_t permute(std::int64_t index, std::int64_t size, std::uint64_t key) {
  const auto half_bits = (std::bit_width(static_cast<std::uint64_t>(size - 1)) + 1) / 2;
  const std::uint64_t half_mask = (std::uint64_t{1} << half_bits) - 1;
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half_bits, right = value & half_mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t next = left ^ (hash({key, round, right}) & half_mask);
      left = right;
      right = next;
    }
    value = left << half_bits | right;
  } while (value >= static_cast<std::uint64_t>(size));
  return static_cast<std::int64_t>(value);
}

SamplePlace place_of_sample(std::int64_t sample, std::uint64_t seed, std::int64_t tokens, std::int64_t length) {
  const std::int64_t windows = (tokens - 1) / length;
  const std::int64_t epoch = sample / windows;
  const std::uint64_t key = hash({seed, static_cast<std::uint64_t>(epoch)});
  const std::int64_t spare = tokens - 1 - windows * length;
  const auto shift = static_cast<std::int64_t>(hash({key, 1}) % static_cast<std::uint64_t>(spare + 1));
  return {epoch, permute(sample % windows, windows, key) * length + shift};
}

}  // namespace longnet
