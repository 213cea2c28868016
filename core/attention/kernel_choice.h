#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace longnet {

/// The kernels that can serve a call of attention.
enum class Kernel {
  CpuFlash,   ///< LibTorch's flash attention for the CPU
  CudaFlash,  ///< FlashAttention-2, as LibTorch ships it
  Cudnn,      ///< cuDNN's fused attention
  Efficient,  ///< LibTorch's memory-efficient attention (CUTLASS): takes masks, and float32 on tensor cores (3xTF32)
  Plain,      ///< matrix products over chunks of rows: any dtype, any width, any device
};

/// What the choice depends on.
struct KernelCase {
  bool cuda;
  int compute_capability;  ///< 10 * major + minor; 0 on the CPU
  at::ScalarType dtype;
  std::int64_t head_width;
  std::int64_t rows;
  std::int64_t keys;
  bool masked;
  bool aligned;  ///< every row of q, k and v begins at a multiple of 16 bytes and is one
};

/// The rule:
///
/// | where, what                                                                 | kernel    |
/// |------------------------------------------------------------------------------|-----------|
/// | CPU                                                                          | CpuFlash  |
/// | GPU before Ampere; float64; rows that are not aligned; D above 256           | Plain     |
/// | float32, or a mask                                                           | Efficient |
/// | bfloat16, float16; Hopper or Blackwell, D up to 128, 128 rows and keys       | Cudnn     |
/// | bfloat16, float16; all else                                                  | CudaFlash |
///
/// cuDNN took 0.5 to 0.8 of FlashAttention-2's time on an H200 from 128 rows on, the fewest that were measured, forward and backward,
/// D 64 and 128, causal and not (docs/performance.md). It plans each new shape once, which smaller tiles do not pay back.
Kernel choose_kernel(const KernelCase& call);

}  // namespace longnet
