#include "core/cuda/device.h"

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include "core/error.h"

namespace longnet {

int device_count() {
  return c10::cuda::device_count();
}

std::string device_identity(int index) {
  const auto& uuid = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index))->uuid.bytes;
  std::string identity;
  for (const char byte : uuid) {
    constexpr const char* digits = "0123456789abcdef";
    identity += digits[static_cast<unsigned char>(byte) / 16];
    identity += digits[static_cast<unsigned char>(byte) % 16];
  }
  return identity;
}

c10::Device select_device(int index) {
  if (index < 0 || index >= device_count()) {
    throw Error("there is no GPU " + std::to_string(index) + " among the " + std::to_string(device_count()) +
                " that this process sees");
  }
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

int compute_capability(c10::Device gpu) {
  const auto* properties = at::cuda::getDeviceProperties(gpu.index());
  return 10 * properties->major + properties->minor;
}

std::int64_t peak_device_bytes(c10::Device gpu) {
  using c10::CachingAllocator::StatType;
  const auto statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(gpu.index());
  return statistics.allocated_bytes[static_cast<std::size_t>(StatType::AGGREGATE)].peak;
}

}  // namespace longnet
