#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "distributed/communicator.h"

namespace longnet {

/// Compares tensors that should be the same on every rank, by a checksum of their bits: any one bit that differs is
/// found. Throws AgreedError (exit code 1), which names the ranks that differ from most others: a memory or a processor
/// may be faulty. Collective.
void require_equal_replicas(Communicator& world, const std::vector<at::Tensor>& tensors);

}  // namespace longnet
