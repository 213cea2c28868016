#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace longnet {

/// The most memory that this process has held at one time, in bytes: of the host (VmHWM) when it computes on the CPU,
/// else of its GPU.
std::int64_t peak_memory_bytes(c10::Device device);

}  // namespace longnet
