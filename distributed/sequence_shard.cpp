#include "distributed/sequence_shard.h"

namespace longnet {

SequenceLayout even_layout(std::int64_t length, int ranks) {
  const std::int64_t size = length / ranks, larger = length % ranks;  // the first ranks hold one position more
  SequenceLayout layout;
  std::int64_t begin = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::int64_t end = begin + size + (rank < larger ? 1 : 0);
    layout.push_back({begin, end});
    begin = end;
  }
  return layout;
}

}  // namespace longnet
