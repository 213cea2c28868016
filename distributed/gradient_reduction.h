#pragma once

#include <ATen/core/Tensor.h>

#include "distributed/communicator.h"

namespace longnet {

/// Sums a flat tensor over all ranks, in place, in buckets of which two travel at a time: the next is on its way while
/// one is summed, and what MPI keeps aside for them stays small. Waits for the result.
void sum_in_buckets(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes = 32 << 20);

}  // namespace longnet
