#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <cstdint>

/// The result of one kernel call, waiting to be joined with others. C++17, because nvcc compiles it.
namespace longnet {

/// Which rows of a tensor (B, places, H, ...) one kernel call served, as plain numbers that a GPU can read: the index
/// arithmetic of tile_view, seen from the other side.
struct PartRows {
  std::int64_t first, count, row_step, head_step, segment_step;  ///< see RowView
  std::int64_t segments;
  std::int64_t first_head, heads, head_stride;  ///< see HeadRun
  std::int64_t sequence;                        ///< the only one of the batch, or -1: all

  /// Where in the call's tensors (batch, heads, rows, ...) a row is.
  struct Index {
    std::int64_t batch, head, row;
    bool found;
  };

  /// Looks up the row of a sequence, place and head.
  C10_HOST_DEVICE Index find(std::int64_t of_sequence, std::int64_t place, std::int64_t head) const {
    Index index{of_sequence, 0, 0, false};
    if (sequence >= 0 && sequence != of_sequence) return index;
    if (head < first_head) return index;
    index.head = (head - first_head) / head_stride;
    if (index.head >= heads || index.head * head_stride != head - first_head) return index;
    std::int64_t distance = place - first - index.head * head_step;
    if (distance < 0) return index;
    if (segments > 1) {  // then the call's batch is its segments
      index.batch = distance / segment_step;
      if (index.batch >= segments) return index;
      distance -= index.batch * segment_step;
    }
    index.row = distance / row_step;
    index.found = index.row < count && index.row * row_step == distance;
    return index;
  }
};

struct Part {
  PartRows rows;
  at::Tensor values;  ///< (batch, heads, rows, D)
  at::Tensor lse;     ///< (batch, heads, rows); undefined where rows are only summed
};

}  // namespace longnet
