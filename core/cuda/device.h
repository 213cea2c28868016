#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

/// The GPUs of this process. In a build without CUDA there are none.
namespace longnet {

int device_count();

/// What tells GPU `index` from every other of the world (its UUID): processes may number the same GPU differently.
std::string device_identity(int index);

/// Makes GPU `index` the one that this thread works on. Throws Error when there is no such GPU.
c10::Device select_device(int index);

/// 10 * major + minor.
int compute_capability(c10::Device gpu);

/// The most bytes of the GPU's memory that tensors of this process have held at one time.
std::int64_t peak_device_bytes(c10::Device gpu);

}  // namespace longnet
