#include "launch/job/device_choice.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "core/cuda/device.h"
#include "core/error.h"
#include "distributed/agreement.h"

namespace longnet {
namespace {

/// How many ranks up to and including `rank` have taken each GPU, where each takes the one that fewest have taken.
std::map<std::string, int> taken_until(const VisibleGpus& visible, int rank, int& number) {
  std::map<std::string, int> taken;
  for (int taker = 0; taker <= rank; ++taker) {
    const auto& gpus = visible[static_cast<std::size_t>(taker)];
    const auto least =
        std::min_element(gpus.begin(), gpus.end(), [&](const auto& a, const auto& b) { return taken[a] < taken[b]; });
    if (least == gpus.end()) continue;
    ++taken[*least];
    number = static_cast<int>(least - gpus.begin());
  }
  return taken;
}

std::size_t distinct(const VisibleGpus& visible) {
  std::set<std::string> all;
  for (const auto& gpus : visible) all.insert(gpus.begin(), gpus.end());
  return all.size();
}

VisibleGpus visible_on_host(Communicator& host) {
  std::string mine;
  for (int index = 0; index < device_count(); ++index) mine += device_identity(index) + " ";
  VisibleGpus visible;
  for (const auto& text : gather_text(host, mine)) {
    std::istringstream words(text);
    visible.emplace_back(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
  }
  return visible;
}

}  // namespace

std::optional<GpuChoice> choose_gpu(const ParallelConfig& parallel, const VisibleGpus& visible, int rank) {
  using Device = ParallelConfig::Device;
  const bool sees_none = visible[static_cast<std::size_t>(rank)].empty();
  if (parallel.device == Device::Cpu || (parallel.device == Device::Automatic && sees_none)) return {};
  if (sees_none) {
    throw ConfigError(
        "parallel.device is cuda, but this rank sees no GPU: is this a build with CUDA "
        "(-DLONGNET_CUDA=ON), is a driver installed, and does CUDA_VISIBLE_DEVICES name a GPU?");
  }
  int number = 0;
  const int last = static_cast<int>(visible.size()) - 1;
  const auto all_taken = taken_until(visible, last, number);
  const bool enough = std::all_of(all_taken.begin(), all_taken.end(), [](const auto& gpu) { return gpu.second <= 1; });
  if (!enough && !parallel.share_gpu) {
    const std::size_t gpus = distinct(visible);
    throw ConfigError("a host has " + std::to_string(visible.size()) + " ranks but " + std::to_string(gpus) +
                      (gpus == 1 ? " GPU" : " GPUs") +
                      " for them: start one rank a GPU, set parallel.device to cpu or, to try things out slowly, "
                      "parallel.share_gpu to true");
  }
  taken_until(visible, rank, number);
  return GpuChoice{number, !enough};
}

DeviceChoice choose_device(const ParallelConfig& parallel, Communicator& world) {
  const auto host = world.split_by_host();
  const VisibleGpus visible = visible_on_host(*host);
  std::optional<GpuChoice> gpu;
  agree(world, [&] { gpu = choose_gpu(parallel, visible, host->rank()); });
  require_same(world, "kind of device", gpu ? "cuda" : "cpu");
  auto shared = at::full({1}, gpu && gpu->shared ? 1 : 0, at::kInt);
  world.all_reduce(shared, Reduction::Maximum)->wait();
  if (!gpu) return {c10::Device(c10::DeviceType::CPU), false};
  return {select_device(gpu->number), shared.item<int>() != 0};
}

}  // namespace longnet
