#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longnet::cuda {

/// Neighbouring values that a thread moves as one, 16 bytes an access. C++17, because nvcc compiles it.
template <typename T, int length>
struct alignas(sizeof(T) * length) Vector {
  T values[length];
};

constexpr std::int64_t access_bytes = 16;

/// How many values of a type one access moves.
template <typename T>
constexpr int values_an_access = static_cast<int>(access_bytes / sizeof(T));

/// Whether all rows of `width` values, which lie in a tensor's last dimension, can be moved so.
inline bool moves_in_vectors(const at::Tensor& tensor, std::int64_t width) {
  const std::int64_t size = tensor.element_size();
  if (width * size % access_bytes != 0 || reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % access_bytes != 0)
    return false;
  for (std::int64_t dimension = 0; dimension + 1 < tensor.dim(); ++dimension) {
    if (tensor.stride(dimension) * size % access_bytes != 0) return false;
  }
  return true;
}

}  // namespace longnet::cuda
