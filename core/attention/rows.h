#pragma once

#include <cstdint>
#include <vector>

#include "core/attention/mixture.h"
#include "core/range.h"

/// Index arithmetic of dilated attention: which positions of a sequence take part in a branch, and how they lie in
/// memory. Pure functions of 64-bit integers; no tensors, no ranks.
namespace longnet {

/// Where the segment that holds `position` begins.
inline std::int64_t segment_begin(const Branch& branch, std::int64_t position) {
  return position / branch.segment * branch.segment;
}

/// The part of a segment that lies in a range, or `count` whole segments of equal length that follow each other there.
struct Piece {
  Range segment;    ///< the (first) segment, cut at the end of the sequence
  Range positions;  ///< the part of it inside the range
  std::int64_t count;

  /// Whether the segment goes on outside the range.
  bool crosses() const { return segment != positions; }
};

/// The pieces of a branch's segments in `own`, in order: at most one that began earlier, a run of whole segments, and
/// one that is short or goes on beyond the end.
std::vector<Piece> pieces(const Branch& branch, std::int64_t length, Range own);

/// Rows of one head: consecutive row numbers, or consecutive places in a tensor, from `first`.
struct Span {
  std::int64_t first;
  std::int64_t count;

  bool operator==(const Span&) const = default;
};

/// What tells the heads of a branch apart.
struct BranchHeads {
  Branch branch;
  std::int64_t heads;
  HeadOffsets layout;

  std::int64_t offset(std::int64_t head) const { return head_offset(head, heads, branch.rate, layout); }
  /// Heads that lie so far apart share an offset (cyclic) or have consecutive ones (block).
  std::int64_t period() const;
};

/// For each head its rows inside `positions`, a part of the segment that begins at `segment_begin`. Row i of a head
/// with offset s lies at segment_begin + s + i * rate.
std::vector<Span> rows_in(const BranchHeads& heads, std::int64_t segment_begin, Range positions);

/// The same rows as places in a tensor whose first place is position `origin`; neighbours are `rate` places apart.
std::vector<Span> places_of(const BranchHeads& heads, std::int64_t segment_begin, const std::vector<Span>& rows,
                            std::int64_t origin);

/// Zero tokens that torchscale would make keys of `head` in the last segment of a sequence of `length` tokens, where
/// that segment is filled up to its full length, and to a multiple of the rate.
struct ZeroKeys {
  std::int64_t segment_begin;
  std::int64_t count;
};
ZeroKeys zero_keys(const BranchHeads& heads, std::int64_t length, std::int64_t head);

/// Rows of several heads and segments in a tensor (B, places, H, ...), as a strided view: the row i of head number h of
/// segment number s is at place first + s * segment_step + h * head_step + i * row_step.
struct RowView {
  std::int64_t first;
  std::int64_t count;
  std::int64_t row_step;
  std::int64_t head_step;
  std::int64_t segment_step;

  bool operator==(const RowView&) const = default;
};

/// Evenly spaced heads.
struct HeadRun {
  std::int64_t first;
  std::int64_t count;
  std::int64_t step;

  bool operator==(const HeadRun&) const = default;
};

/// What one kernel call serves: `queries` attend to `keys`, head by head and segment by segment.
struct Tile {
  std::int64_t segments;
  HeadRun heads;
  RowView queries;
  RowView keys;
  RowView key_positions;  ///< of the same keys, as positions in the sequence: for masks
};

/// One side of a set of tiles: for each head its span, and the step between neighbouring rows.
struct HeadRows {
  std::vector<Span> spans;
  std::int64_t row_step;
};

/// Covers all heads that have both queries and keys with few tiles. Heads share a tile when they are evenly spaced,
/// have equally many rows and their first places advance evenly, never backwards; the steps 1 and `period` between
/// heads are tried.
std::vector<Tile> make_tiles(const HeadRows& queries, const HeadRows& keys, const HeadRows& key_positions,
                             std::int64_t period, std::int64_t segments, std::int64_t segment_step);

}  // namespace longnet
