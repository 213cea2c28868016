#include "distributed/exchange_plan.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace longnet {
namespace {

std::int64_t count(const std::vector<Span>& rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0},
                         [](std::int64_t sum, const Span& span) { return sum + span.count; });
}

/// The ranks that hold a part of `segment`.
std::vector<int> ranks_of(Range segment, const SequenceLayout& layout) {
  std::vector<int> ranks;
  for (std::size_t rank = 0; rank < layout.size(); ++rank) {
    if (overlap(segment, layout[rank]).size() > 0) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

/// Whether every segment of the branch is made of whole shares, all of one size, that contribute equally many rows.
bool is_aligned(const BranchHeads& heads, std::int64_t length, const SequenceLayout& layout) {
  const std::int64_t share = layout[0].size();
  const std::int64_t segment = std::min(heads.branch.segment, length);
  if (share == 0 || segment % share != 0 || length % segment != 0) return false;
  if (std::any_of(layout.begin(), layout.end(), [&](Range own) { return own.size() != share; })) return false;
  const std::int64_t rows = count(rows_in(heads, 0, layout[0]));
  for (std::int64_t begin = 0; begin < segment; begin += share) {
    if (count(rows_in(heads, 0, {begin, begin + share})) != rows) return false;
  }
  return true;
}

/// Does a query at `reader` see keys at `owner`?
bool sees(Range reader, Range owner, bool causal) {
  return !causal || owner.begin < reader.begin;
}

/// The owner's rows, without the heads for which the reader has no query.
std::vector<Span> rows_for(const std::vector<Span>& owner, const std::vector<Span>& reader) {
  auto rows = owner;
  for (std::size_t head = 0; head < rows.size(); ++head) {
    if (reader[head].count == 0) rows[head].count = 0;
  }
  return rows;
}

CrossingTraffic traffic_of(const CrossingSegment& crossing, bool causal, const SequenceLayout& layout, int rank,
                           Transport transport) {
  const auto rows_of = [&](int holder) {
    return rows_in(crossing.heads, crossing.segment.begin,
                   overlap(crossing.segment, layout[static_cast<std::size_t>(holder)]));
  };
  const Range own = layout[static_cast<std::size_t>(rank)];
  CrossingTraffic traffic{transport, ranks_of(crossing.segment, layout), rows_of(rank), {}, {}, 0};
  for (const int peer : traffic.group) {
    if (peer == rank) continue;
    const Range theirs = layout[static_cast<std::size_t>(peer)];
    const auto peer_rows = rows_of(peer);
    const bool whole = transport == Transport::Aligned;  // an all-gather carries every row
    if (sees(own, theirs, causal)) {
      traffic.receives.push_back({peer, whole ? peer_rows : rows_for(peer_rows, traffic.own_rows)});
    }
    if (sees(theirs, own, causal)) {
      traffic.sends.push_back({peer, whole ? traffic.own_rows : rows_for(traffic.own_rows, peer_rows)});
    }
    if (whole) traffic.received_rows += count(peer_rows);
  }
  if (transport == Transport::Unaligned) {
    for (const Parcel& parcel : traffic.receives) traffic.received_rows += parcel.row_count();
  }
  return traffic;
}

}  // namespace

std::int64_t Parcel::row_count() const {
  return count(rows);
}

std::vector<CrossingTraffic> plan_exchange(const AttentionPlan& plan, const SequenceLayout& layout, int rank,
                                           TransportChoice choice) {
  std::vector<CrossingTraffic> result;
  for (const CrossingSegment& crossing : plan.crossings) {
    const bool aligned = is_aligned(crossing.heads, plan.length, layout);
    if (choice == TransportChoice::Aligned && !aligned) {
      throw ConfigError("parallel.transport is aligned, but segments of " +
                        std::to_string(crossing.heads.branch.segment) + " tokens at rate " +
                        std::to_string(crossing.heads.branch.rate) +
                        " are no whole number of equal shares with equally many rows; use parallel.transport: auto");
    }
    const bool use_aligned = aligned && choice != TransportChoice::Unaligned;
    result.push_back(
        traffic_of(crossing, plan.causal, layout, rank, use_aligned ? Transport::Aligned : Transport::Unaligned));
  }
  return result;
}

std::int64_t forward_bytes(const std::vector<CrossingTraffic>& traffic, std::int64_t batch, std::int64_t head_width,
                           std::int64_t element_size) {
  std::int64_t rows = 0;
  for (const CrossingTraffic& crossing : traffic) rows += crossing.received_rows;
  return 2 * element_size * head_width * batch * rows;
}

}  // namespace longnet
