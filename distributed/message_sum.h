#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "distributed/communicator.h"

namespace longnet {

/// A reduce-scatter made of messages, for sums in rank order that may be wider than what travels.
struct MessageSum {
  at::Tensor parts;  ///< (size, ...): from every rank, what it has for this one
  std::vector<Message> sends, receives;

  /// For `input` (size, ...): one part for each rank of the group. The own part is there at once.
  MessageSum(const at::Tensor& input, int rank);

  /// Once the messages have arrived: output (...) = the sum of all parts, in rank order and in output's dtype.
  void sum_into(const at::Tensor& output) const;
};

}  // namespace longnet
