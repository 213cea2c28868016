#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/range.h"
#include "distributed/communicator.h"

/// A flat tensor of which every rank owns an equal part (equal_part): what sums over ranks, a sharded optimizer (ZeRO stage 1, arXiv
/// 1910.02054) and checkpoints have in common. Reducing to parts and gathering them again is a sum over all ranks.
namespace longnet {

/// The parts of a flat tensor of `count` elements, in rank order, and this rank's.
std::vector<Range> all_parts(const Communicator& communicator, std::int64_t count);
Range own_part(const Communicator& communicator, std::int64_t count);

/// This rank's part of `flat` becomes the sum of all ranks' values there, in rank order; the other parts stay as they are.
/// In buckets, of which two travel at a time: what is kept aside for them stays small. `bucket_bytes`: of all ranks' parts
/// together; 0 means what is fast. Waits.
void reduce_to_parts(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes = 0);

/// Every rank gets every other's part of `flat`. Waits.
void gather_parts(Communicator& communicator, const at::Tensor& flat, std::int64_t bucket_bytes = 0);

}  // namespace longnet
