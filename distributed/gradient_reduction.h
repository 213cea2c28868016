#pragma once

#include <ATen/core/Tensor.h>

#include "distributed/communicator.h"

namespace longnet {

/// Sums a flat tensor over all ranks, in place, in buckets that travel at the same time: a large message neither waits
/// for the one before it nor needs a buffer of its own size. Waits for the result.
void sum_in_buckets(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes = 32 << 20);

}  // namespace longnet
