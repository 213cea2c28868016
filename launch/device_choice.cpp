#include "launch/device_choice.h"

#include <ATen/ATen.h>

#include <string>

#include "core/cuda/device.h"
#include "core/error.h"
#include "distributed/agreement.h"

namespace longnet {

std::optional<int> choose_gpu(const ParallelConfig& parallel, const HostShare& host) {
  using Device = ParallelConfig::Device;
  if (parallel.device == Device::Cpu || (parallel.device == Device::Automatic && host.gpus == 0)) return {};
  if (host.gpus == 0) {
    throw ConfigError(
        "parallel.device is cuda, but this rank sees no GPU: is this a build with CUDA "
        "(-DLONGNET_CUDA=ON), is a driver installed, and does CUDA_VISIBLE_DEVICES name a GPU?");
  }
  if (host.ranks > host.gpus && !parallel.share_gpu) {
    throw ConfigError("a host has " + std::to_string(host.ranks) + " ranks but " + std::to_string(host.gpus) +
                      (host.gpus == 1 ? " GPU" : " GPUs") +
                      ": start one rank a GPU, set parallel.device to cpu or, to try things out slowly, "
                      "parallel.share_gpu to true");
  }
  return host.rank % host.gpus;
}

DeviceChoice choose_device(const ParallelConfig& parallel, Communicator& world) {
  const auto on_host = world.split_by_host();
  const HostShare host{device_count(), on_host->rank(), on_host->size()};
  std::optional<int> gpu;
  agree(world, [&] { gpu = choose_gpu(parallel, host); });
  require_same(world, "kind of device", gpu ? "cuda" : "cpu");
  auto shared = at::full({1}, host.ranks > host.gpus ? 1 : 0, at::kInt);
  world.all_reduce(shared, Reduction::Maximum)->wait();
  if (!gpu) return {c10::Device(c10::DeviceType::CPU), false};
  return {select_device(*gpu), shared.item<int>() != 0};
}

}  // namespace longnet
