#include "distributed/gradient_reduction.h"

#include <algorithm>
#include <deque>

namespace longnet {

void sum_in_buckets(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes) {
  if (communicator.size() == 1) return;
  constexpr std::size_t most_under_way = 2;  // MPI holds a buffer of a bucket's size for each
  const std::int64_t bucket = std::max<std::int64_t>(1, bucket_bytes / static_cast<std::int64_t>(flat.element_size()));
  std::deque<std::unique_ptr<Work>> works;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += bucket) {
    const std::int64_t end = std::min(begin + bucket, flat.numel());
    if (works.size() == most_under_way) {
      works.front()->wait();
      works.pop_front();
    }
    works.push_back(communicator.all_reduce(flat.slice(0, begin, end), Reduction::Sum));
  }
  for (const auto& work : works) work->wait();
}

}  // namespace longnet
