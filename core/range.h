#pragma once

#include <algorithm>
#include <cstdint>

namespace longnet {

/// Numbers begin <= i < end: positions of a sequence, rows, elements of a tensor.
struct Range {
  std::int64_t begin;
  std::int64_t end;

  std::int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// What lies in both; empty where nothing does.
inline Range overlap(Range a, Range b) {
  const std::int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

/// Part number `part` of 0 <= i < `total` in `parts` parts, whose sizes differ by one at most.
inline Range equal_part(std::int64_t total, std::int64_t part, std::int64_t parts) {
  const auto begin = [&](std::int64_t of) { return total / parts * of + total % parts * of / parts; };
  return {begin(part), begin(part + 1)};
}

}  // namespace longnet
