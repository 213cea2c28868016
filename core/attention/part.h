#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstdint>
#include <limits>

/// The result of one kernel call, waiting to be joined with others. C++17, because nvcc compiles it.
namespace longnet {

/// Places of the rows that one call served for one head: row number i of segment s is at first + s * segment_step + i * row_step.
template <typename Integer>
struct HeadPlaces {
  Integer first, count, row_step, segments, segment_step;

  struct Index {
    Integer segment, row;
    bool found;
  };

  C10_HOST_DEVICE Index find(Integer place) const {
    Index index{0, 0, false};
    Integer distance = place - first;
    if (distance < 0) return index;
    if (segments > 1) {
      index.segment = distance / segment_step;
      if (index.segment >= segments) return index;
      distance -= index.segment * segment_step;
    }
    index.row = distance / row_step;
    index.found = index.row < count && index.row * row_step == distance;
    return index;
  }
};

/// The same in half the bits, which a GPU divides by faster, for a tensor of fewer than 2^31 places: a step that does not fit leads out
/// of it, as the largest number does.
inline HeadPlaces<std::int32_t> narrowed(const HeadPlaces<std::int64_t>& places) {
  const auto narrow = [](std::int64_t value) {
    return static_cast<std::int32_t>(std::min<std::int64_t>(value, std::numeric_limits<std::int32_t>::max()));
  };
  return {narrow(places.first), narrow(places.count), narrow(places.row_step), narrow(places.segments),
          narrow(places.segment_step)};
}

/// Which rows of a tensor (B, places, H, ...) one kernel call served, as plain numbers that a GPU can read: the index
/// arithmetic of tile_view, seen from the other side.
struct PartRows {
  std::int64_t first, count, row_step, head_step, segment_step;  ///< see RowView
  std::int64_t segments;                                         ///< where there are several, they are the call's batch
  std::int64_t first_head, heads, head_stride;                   ///< see HeadRun
  std::int64_t sequence;                                         ///< the only one of the batch, or -1: all

  bool holds_sequence(std::int64_t number) const { return sequence < 0 || sequence == number; }

  /// The head number `number` of the call.
  HeadPlaces<std::int64_t> places_of(std::int64_t number) const {
    return {first + number * head_step, count, row_step, segments, segment_step};
  }
};

struct Part {
  PartRows rows;
  at::Tensor values;  ///< (batch, heads, rows, D)
  at::Tensor lse;     ///< (batch, heads, rows); undefined where rows are only summed
};

}  // namespace longnet
