#include "launch/output/peak_memory.h"

#include <fstream>
#include <string>

#include "core/cuda/device.h"

namespace longnet {

std::int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cuda()) return peak_device_bytes(device);
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace longnet
