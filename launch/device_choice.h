#pragma once

#include <c10/core/Device.h>

#include <optional>

#include "core/configuration/configuration.h"
#include "distributed/communicator.h"

namespace longnet {

/// What a rank knows of its host.
struct HostShare {
  int gpus;   ///< that this rank sees
  int rank;   ///< among the ranks of the host
  int ranks;  ///< on the host
};

/// The number of the GPU that a rank takes, or none for the CPU: each rank its own, in the order of ranks. Throws
/// ConfigError when the configuration asks for GPUs that are not there, or when there are more ranks than GPUs and
/// sharing is not allowed.
std::optional<int> choose_gpu(const ParallelConfig& parallel, const HostShare& host);

struct DeviceChoice {
  c10::Device device;
  bool shared;  ///< some GPU of the job serves several ranks, so that tensors must travel through host memory
};

/// Chooses and selects this rank's device. Collective; throws AgreedError for what choose_gpu throws, and when some
/// ranks have GPUs and others none.
DeviceChoice choose_device(const ParallelConfig& parallel, Communicator& world);

}  // namespace longnet
