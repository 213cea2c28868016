#pragma once

#include <cstdint>
#include <vector>

#include "core/range.h"

namespace longnet {

/// The part of a sequence that this process holds: positions own.begin <= p < own.end of a sequence of `length` tokens.
/// All that a model knows of sequence parallelism.
struct SequenceShard {
  std::int64_t length;
  Range own;

  std::int64_t size() const { return own.size(); }
  /// Whether the sequence begins here: exactly one of its shards says so.
  bool is_first() const { return own.begin == 0 && own.end > 0; }
  bool operator==(const SequenceShard&) const = default;
};

/// Who holds what: the ranges of all ranks that share a sequence, in rank order and without gaps. Ranges may differ in
/// size and may be empty.
using SequenceLayout = std::vector<Range>;

/// `length` positions in `ranks` ranges whose sizes differ by one at most.
SequenceLayout even_layout(std::int64_t length, int ranks);

}  // namespace longnet
