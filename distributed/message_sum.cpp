#include "distributed/message_sum.h"

#include <ATen/ATen.h>

namespace longnet {

MessageSum::MessageSum(const at::Tensor& input, int rank) : parts(at::empty(input.sizes(), input.options())) {
  for (int peer = 0; peer < static_cast<int>(input.size(0)); ++peer) {
    if (peer == rank) continue;
    sends.push_back({peer, input[peer]});
    receives.push_back({peer, parts[peer]});
  }
  parts[rank].copy_(input[rank]);
}

void MessageSum::sum_into(const at::Tensor& output) const {
  output.copy_(parts[0]);
  for (std::int64_t peer = 1; peer < parts.size(0); ++peer) output.add_(parts[peer]);
}

}  // namespace longnet
