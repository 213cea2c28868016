#pragma once

#include <cstdint>

namespace longnet {

/// A permutation of 0 .. size-1, as a function of `key`: where `index` goes. Takes no memory: a Feistel network over
/// the next even power of two, walked until it comes back into range.
std::int64_t permute(std::int64_t index, std::int64_t size, std::uint64_t key);

/// Which part of the data the sample number `sample` of a training run is.
struct SamplePlace {
  std::int64_t epoch;
  std::int64_t begin;  ///< its first token
};

/// Each epoch cuts the `tokens` tokens into windows of `length` tokens and the target after the last, shifted by a
/// different number of tokens, and visits them in a different order: a pure function of seed and sample number, the
/// same on every rank. Needs tokens > length.
SamplePlace place_of_sample(std::int64_t sample, std::uint64_t seed, std::int64_t tokens, std::int64_t length);

}  // namespace longnet
