#include "core/cuda/side_streams.h"

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>
#include <vector>

namespace longnet::cuda {
namespace {

constexpr std::size_t stream_count = 3;

/// Always the same of LibTorch's pool: memory that a stream has freed serves that stream alone.
const std::vector<c10::cuda::CUDAStream>& side_streams(c10::DeviceIndex device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, std::vector<c10::cuda::CUDAStream>> all;
  const std::lock_guard lock(mutex);
  auto& streams = all[device];
  while (streams.size() < stream_count)
    streams.push_back(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device));
  return streams;
}

void wait_for(const c10::cuda::CUDAStream& waiting, const c10::cuda::CUDAStream& other) {
  at::cuda::CUDAEvent event;
  event.record(other);
  event.block(waiting);
}

}  // namespace

void on_side_streams(c10::Device device, std::int64_t count, const std::function<void(std::int64_t)>& work) {
  const c10::cuda::CUDAGuard guard(device);
  const auto current = c10::cuda::getCurrentCUDAStream();
  const auto& streams = side_streams(device.index());
  for (const auto& stream : streams) wait_for(stream, current);
  const auto join = [&] {
    for (const auto& stream : streams) wait_for(current, stream);
  };
  try {
    for (std::int64_t number = 0; number < count; ++number) {
      const c10::cuda::CUDAStreamGuard on(streams[static_cast<std::size_t>(number) % streams.size()]);
      work(number);
    }
  } catch (...) {
    join();
    throw;
  }
  join();
}

}  // namespace longnet::cuda
