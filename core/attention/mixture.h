#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longnet {

/// One branch of dilated attention (LongNet, section 2.2): segments of `segment` tokens, of which every `rate`-th takes
/// part.
struct Branch {
  std::int64_t segment;
  std::int64_t rate;

  bool operator==(const Branch&) const = default;
};

/// How heads are shifted against each other (LongNet, section 2.4).
enum class HeadOffsets {
  Cyclic,  ///< head j has the offset j mod r: the paper's
  Block,   ///< head j has the offset j / ceil(H / r): the layout of published checkpoints
};

/// The branches whose keys share one softmax (LongNet, section 2.3).
struct Mixture {
  std::vector<Branch> branches;
  HeadOffsets head_offsets = HeadOffsets::Cyclic;
  /// torchscale's way with segments that it fills up with zero tokens: in a bidirectional attention they are keys of
  /// score 0 and value 0. See zero_keys in rows.h.
  bool zero_keys = false;

  bool operator==(const Mixture&) const = default;
};

/// Pairs segments with rates. Throws ConfigError when their counts differ, there are none, or one is below 1.
Mixture make_mixture(const std::vector<std::int64_t>& segments, const std::vector<std::int64_t>& rates,
                     HeadOffsets head_offsets);

/// Throws ConfigError when torchscale misplaces the rows of a sequence of `length` tokens under this mixture: a rate
/// that does not divide a segment shorter than the sequence.
void require_rows_in_place(const Mixture& mixture, std::int64_t length);

/// The offset of `head` among `heads` in a branch of `rate`.
std::int64_t head_offset(std::int64_t head, std::int64_t heads, std::int64_t rate, HeadOffsets layout);

/// A query that no branch covers: its output is 0.
struct UncoveredQuery {
  std::int64_t head;
  std::int64_t position;
};

/// The first (position, head) of a sequence of `length` tokens that no branch covers, if there is one.
std::optional<UncoveredQuery> find_uncovered_query(const Mixture& mixture, std::int64_t heads, std::int64_t length);

}  // namespace longnet
