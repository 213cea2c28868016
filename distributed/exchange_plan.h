#pragma once

#include <cstdint>
#include <vector>

#include "core/attention/plan.h"
#include "distributed/sequence_shard.h"

/// Which rows of keys and values travel between which ranks. Pure index arithmetic: no tensors, no communication.
namespace longnet {

/// How the rows of a branch's crossing segments travel.
enum class Transport {
  Aligned,    ///< all-gather and reduce-scatter among the ranks of a segment, which all hold equally many rows of it
  Unaligned,  ///< messages between pairs of ranks, with exactly the rows that the receiver's queries see
};

/// What the user asks for.
enum class TransportChoice {
  Automatic,  ///< aligned where a branch allows it
  Aligned,    ///< aligned, and an error where a branch does not allow it
  Unaligned,
};

/// Rows of one segment that one rank has for another: for each head, row numbers in the segment. A message holds them
/// head by head.
struct Parcel {
  int peer;
  std::vector<Span> rows;

  std::int64_t row_count() const;
};

/// The traffic of one crossing segment. Entry i of the plan belongs to crossings[i] of the attention plan.
struct CrossingTraffic {
  Transport transport;
  std::vector<int> group;        ///< the ranks that the segment touches, in order, this one included
  std::vector<Span> own_rows;    ///< all rows of this rank: what it contributes to an all-gather
  std::vector<Parcel> sends;     ///< one for each rank whose queries see rows of this one
  std::vector<Parcel> receives;  ///< one for each rank whose rows this rank's queries see
  std::int64_t received_rows;    ///< rows of other ranks that arrive here, needed or not, summed over heads
};

/// The traffic of `rank`. Throws ConfigError when `choice` is Aligned and a crossing branch is not.
std::vector<CrossingTraffic> plan_exchange(const AttentionPlan& plan, const SequenceLayout& layout, int rank,
                                           TransportChoice choice);

/// Bytes of keys and values that one forward pass of one layer brings to this rank; the gradients that a backward pass
/// brings to all ranks together are as many as the rows that a forward pass brings to all ranks together.
std::int64_t forward_bytes(const std::vector<CrossingTraffic>& traffic, std::int64_t batch, std::int64_t head_width,
                           std::int64_t element_size);

}  // namespace longnet
