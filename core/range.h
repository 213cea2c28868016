#pragma once

#include <cstdint>

namespace longnet {

/// Numbers begin <= i < end: positions of a sequence, rows, elements of a tensor.
struct Range {
  std::int64_t begin;
  std::int64_t end;

  std::int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

}  // namespace longnet
