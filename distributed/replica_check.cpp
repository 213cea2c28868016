#include "distributed/replica_check.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <string>

#include "distributed/agreement.h"

namespace longnet {
namespace {

/// The sum of all 64-bit words of a flat tensor: it does not depend on the order, so that the device may take any.
at::Tensor checksum(const at::Tensor& tensor) {
  const std::int64_t per_word = static_cast<std::int64_t>(sizeof(std::int64_t)) / tensor.element_size();
  const std::int64_t whole = tensor.numel() / per_word * per_word;
  auto sum = tensor.slice(0, 0, whole).view(at::kLong).sum();
  if (whole < tensor.numel()) sum += tensor.slice(0, whole).view(at::kInt).sum(at::kLong);
  return sum.to(at::kCPU);
}

}  // namespace

void require_equal_replicas(Communicator& world, const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> own;
  own.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) own.push_back(checksum(tensor));
  const auto mine = at::stack(own);
  auto gathered = at::empty({world.size(), mine.numel()}, at::kLong);
  world.all_gather(gathered, mine)->wait();

  std::vector<std::vector<std::int64_t>> sums;
  std::map<std::vector<std::int64_t>, int> votes;
  for (std::int64_t rank = 0; rank < world.size(); ++rank) {
    const auto row = gathered[rank];
    const auto* begin = row.const_data_ptr<std::int64_t>();
    ++votes[sums.emplace_back(begin, begin + row.numel())];
  }
  if (votes.size() == 1) return;
  const auto most =
      std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  std::string text = "the ranks hold different weights or optimizer states";
  if (2 * most->second > world.size()) {
    text += ':';
    for (std::size_t rank = 0; rank < sums.size(); ++rank) {
      if (sums[rank] != most->first) text += " rank " + std::to_string(rank);
    }
    text += " differs from most others";
  }
  throw AgreedError(Error(text +
                          "; a memory or a processor may be faulty. Nothing of it is saved: start again, from the "
                          "last checkpoint"));
}

}  // namespace longnet
