#include "core/attention/rows.h"

#include <algorithm>

namespace longnet {
namespace {

/// How many rows of a head with this offset lie before `position`, counted in the segment.
std::int64_t rows_before(std::int64_t position, std::int64_t segment_begin, std::int64_t offset, std::int64_t rate) {
  const std::int64_t distance = position - segment_begin - offset;
  return distance <= 0 ? 0 : (distance + rate - 1) / rate;
}

/// The two sides of a set of tiles, and where the keys are in the sequence.
struct Sides {
  const HeadRows& queries;
  const HeadRows& keys;
  const HeadRows& key_positions;

  bool empty(std::int64_t head) const { return at(queries, head).count == 0 || at(keys, head).count == 0; }

  static const Span& at(const HeadRows& rows, std::int64_t head) { return rows.spans[static_cast<std::size_t>(head)]; }

  /// Whether `head` may follow the run's last head.
  bool continues(const HeadRun& run, std::int64_t head) const {
    const auto fits = [&](const HeadRows& rows) {
      const Span& first = at(rows, run.first);
      const Span& next = at(rows, head);
      if (next.count != first.count) return false;
      if (run.count == 1) return next.first >= first.first;  // LibTorch has no negative strides
      return next.first - first.first == run.count * (at(rows, run.first + run.step).first - first.first);
    };
    return !empty(head) && fits(queries) && fits(keys) && fits(key_positions);
  }
};

std::vector<HeadRun> head_runs(const Sides& sides, std::int64_t heads, std::int64_t step) {
  std::vector<HeadRun> runs;
  for (std::int64_t start = 0; start < std::min(step, heads); ++start) {
    bool open = false;
    for (std::int64_t head = start; head < heads; head += step) {
      if (open && sides.continues(runs.back(), head)) {
        ++runs.back().count;
      } else {
        open = !sides.empty(head);
        if (open) runs.push_back({head, 1, step});
      }
    }
  }
  return runs;
}

}  // namespace

std::vector<Piece> pieces(const Branch& branch, std::int64_t length, Range own) {
  std::vector<Piece> result;
  for (std::int64_t position = own.begin; position < own.end;) {
    const std::int64_t begin = segment_begin(branch, position);
    const Range segment{begin, branch.segment < length - begin ? begin + branch.segment : length};
    Piece piece{segment, {position, std::min(segment.end, own.end)}, 1};
    if (!piece.crosses() && segment.size() == branch.segment) {
      piece.count = (own.end - begin) / branch.segment;
      position = begin + piece.count * branch.segment;
    } else {
      position = piece.positions.end;
    }
    result.push_back(piece);
  }
  return result;
}

std::int64_t BranchHeads::period() const {
  return layout == HeadOffsets::Cyclic ? branch.rate : (heads + branch.rate - 1) / branch.rate;
}

std::vector<Span> rows_in(const BranchHeads& heads, std::int64_t segment_begin, Range positions) {
  std::vector<Span> rows;
  for (std::int64_t head = 0; head < heads.heads; ++head) {
    const std::int64_t offset = heads.offset(head);
    const std::int64_t begin = rows_before(positions.begin, segment_begin, offset, heads.branch.rate);
    const std::int64_t end = rows_before(positions.end, segment_begin, offset, heads.branch.rate);
    rows.push_back({begin, end - begin});
  }
  return rows;
}

ZeroKeys zero_keys(const BranchHeads& heads, std::int64_t length, std::int64_t head) {
  const std::int64_t rate = heads.branch.rate, segment = std::min(heads.branch.segment, length);
  const std::int64_t begin = (length - 1) / segment * segment;
  const std::int64_t rows_when_full = (segment + rate - 1) / rate;
  return {begin, rows_when_full - rows_before(length, begin, heads.offset(head), rate)};
}

std::vector<Span> places_of(const BranchHeads& heads, std::int64_t segment_begin, const std::vector<Span>& rows,
                            std::int64_t origin) {
  std::vector<Span> places;
  for (std::int64_t head = 0; head < heads.heads; ++head) {
    const Span& span = rows[static_cast<std::size_t>(head)];
    places.push_back({segment_begin + heads.offset(head) + span.first * heads.branch.rate - origin, span.count});
  }
  return places;
}

std::vector<Tile> make_tiles(const HeadRows& queries, const HeadRows& keys, const HeadRows& key_positions,
                             std::int64_t period, std::int64_t segments, std::int64_t segment_step) {
  const Sides sides{queries, keys, key_positions};
  const auto heads = static_cast<std::int64_t>(queries.spans.size());
  auto runs = head_runs(sides, heads, 1);
  if (auto other = head_runs(sides, heads, period); other.size() < runs.size()) runs = std::move(other);

  std::vector<Tile> tiles;
  for (const HeadRun& run : runs) {
    const auto view = [&](const HeadRows& rows) {
      const Span& first = Sides::at(rows, run.first);
      const std::int64_t head_step = run.count == 1 ? 0 : Sides::at(rows, run.first + run.step).first - first.first;
      return RowView{first.first, first.count, rows.row_step, head_step, segment_step};
    };
    tiles.push_back({segments, run, view(queries), view(keys), view(key_positions)});
  }
  return tiles;
}

}  // namespace longnet
