#pragma once

#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <vector>

#include "core/configuration/configuration.h"
#include "distributed/communicator.h"

namespace longnet {

/// The GPUs that each rank of a host sees, in the order in which it numbers them, by identity. Ranks may see all of the
/// host's, or, as a batch system has it, their own only.
using VisibleGpus = std::vector<std::vector<std::string>>;

/// A rank's GPU.
struct GpuChoice {
  int number;   ///< as the rank numbers it
  bool shared;  ///< other ranks have taken it, too
};

/// What rank number `rank` of a host takes: the first GPU that it sees and that no earlier rank has taken; none means
/// the CPU. Throws ConfigError when the configuration asks for GPUs that are not there, or when there are more ranks
/// than GPUs and sharing is not allowed.
std::optional<GpuChoice> choose_gpu(const ParallelConfig& parallel, const VisibleGpus& visible, int rank);

struct DeviceChoice {
  c10::Device device;
  bool shared;  ///< some GPU of the job serves several ranks, so that tensors must travel through host memory
};

/// Chooses and selects this rank's device. Collective; throws AgreedError for what choose_gpu throws, and when some
/// ranks have GPUs and others none.
DeviceChoice choose_device(const ParallelConfig& parallel, Communicator& world);

}  // namespace longnet
