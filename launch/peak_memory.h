#pragma once

#include <cstdint>

namespace longnet {

/// The most memory that this process has held at one time, in bytes (VmHWM).
std::int64_t peak_memory_bytes();

}  // namespace longnet
