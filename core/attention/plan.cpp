#include "core/attention/plan.h"

#include <algorithm>

namespace longnet {
namespace {

std::vector<Tile> tiles_inside(const BranchHeads& heads, const Piece& piece, Range own) {
  const auto rows = rows_in(heads, piece.segment.begin, piece.positions);
  const HeadRows places{places_of(heads, piece.segment.begin, rows, own.begin), heads.branch.rate};
  const HeadRows positions{places_of(heads, piece.segment.begin, rows, 0), heads.branch.rate};
  return make_tiles(places, places, positions, heads.period(), piece.count, heads.branch.segment);
}

/// The segment's rows that own queries see outside the own range, split at it.
std::vector<std::vector<Span>> remote_rows(const BranchHeads& heads, const Piece& piece, bool causal) {
  std::vector<std::vector<Span>> result{
      rows_in(heads, piece.segment.begin, {piece.segment.begin, piece.positions.begin})};
  if (!causal) result.push_back(rows_in(heads, piece.segment.begin, {piece.positions.end, piece.segment.end}));
  return result;
}

CrossingSegment crossing(const BranchHeads& heads, const Piece& piece, bool causal, Range own) {
  CrossingSegment result{heads, piece.segment, piece.positions, 0, {}};
  const auto rows = rows_in(heads, piece.segment.begin, piece.positions);
  const HeadRows queries{places_of(heads, piece.segment.begin, rows, own.begin), heads.branch.rate};
  for (const auto& spans : remote_rows(heads, piece, causal)) {
    const HeadRows positions{places_of(heads, piece.segment.begin, spans, 0), heads.branch.rate};
    const auto tiles = make_tiles(queries, {spans, 1}, positions, heads.period(), 1, 0);
    result.tiles.insert(result.tiles.end(), tiles.begin(), tiles.end());
    for (const Span& span : spans) result.buffer_rows = std::max(result.buffer_rows, span.first + span.count);
  }
  return result;
}

}  // namespace

AttentionPlan plan_attention(const Mixture& mixture, std::int64_t heads, bool causal, std::int64_t length, Range own) {
  AttentionPlan plan{mixture, heads, causal, length, own, {}, {}};
  for (const Branch& branch : mixture.branches) {
    const BranchHeads branch_heads{branch, heads, mixture.head_offsets};
    for (const Piece& piece : pieces(branch, length, own)) {
      const auto tiles = tiles_inside(branch_heads, piece, own);
      plan.own_tiles.insert(plan.own_tiles.end(), tiles.begin(), tiles.end());
      if (piece.crosses()) plan.crossings.push_back(crossing(branch_heads, piece, causal, own));
    }
  }
  return plan;
}

std::int64_t score_pairs(const AttentionPlan& plan) {
  std::int64_t pairs = 0;
  for (const Tile& tile : plan.own_tiles) {
    const std::int64_t rows = tile.queries.count;
    pairs += tile.segments * tile.heads.count * (plan.causal ? rows * (rows + 1) / 2 : rows * rows);
  }
  for (const CrossingSegment& segment : plan.crossings) {
    for (const Tile& tile : segment.tiles) pairs += tile.heads.count * tile.queries.count * tile.keys.count;
  }
  return pairs;
}

}  // namespace longnet
