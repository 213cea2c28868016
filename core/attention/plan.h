#pragma once

#include <cstdint>
#include <vector>

#include "core/attention/mixture.h"
#include "core/attention/rows.h"

namespace longnet {

/// A segment of a branch that goes on outside the own range, and the work that its remote keys make for own queries.
///
/// Remote keys and values come in a buffer (B, buffer_rows, H, D): the row i of head j of the segment at [:, i, j].
struct CrossingSegment {
  BranchHeads heads;
  Range segment;
  Range own;
  std::int64_t buffer_rows;
  std::vector<Tile> tiles;  ///< queries: places in the own range; keys: rows of the buffer; none is causal
};

/// Everything about a dilated attention but its tensors: which kernel calls cover the queries that lie in `own`.
struct AttentionPlan {
  Mixture mixture;
  std::int64_t heads;
  bool causal;
  std::int64_t length;          ///< N, of the whole sequence
  Range own;                    ///< the positions that q, k and v hold
  std::vector<Tile> own_tiles;  ///< queries and keys of the own range, causal inside a tile if the plan is causal
  std::vector<CrossingSegment> crossings;
};

/// Plans the attention of `own` queries. O(branches * heads), whatever the length.
AttentionPlan plan_attention(const Mixture& mixture, std::int64_t heads, bool causal, std::int64_t length, Range own);

/// The (query, key) pairs that the plan's queries score, a sequence of the batch: the unit of useful work. A pair costs
/// 4 * D floating-point operations forward and 10 * D backward.
std::int64_t score_pairs(const AttentionPlan& plan);

}  // namespace longnet
