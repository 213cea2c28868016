#include "core/layers/cuda/rotary.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/complex.h>

#include <algorithm>

namespace longnet::cuda {
namespace {

constexpr int block = 256;

/// One thread a pair of channels.
template <typename T, typename Wide>
__global__ void __launch_bounds__(block)
    turn(const T* __restrict__ x, T* __restrict__ y, const c10::complex<Wide>* __restrict__ rotations,
         std::int64_t count, std::int64_t positions, std::int64_t heads, std::int64_t pairs, bool back) {
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * block;
  std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * block + threadIdx.x;
  for (; index < count; index += threads) {
    const std::int64_t pair = index % pairs, position = index / pairs / heads % positions;
    const c10::complex<Wide> rotation = rotations[position * pairs + pair];
    const Wide cosine = rotation.real(), sine = back ? -rotation.imag() : rotation.imag();
    const Wide a = static_cast<Wide>(x[2 * index]), b = static_cast<Wide>(x[2 * index + 1]);
    y[2 * index] = static_cast<T>(a * cosine - b * sine);
    y[2 * index + 1] = static_cast<T>(b * cosine + a * sine);
  }
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations, bool back) {
  TORCH_CHECK(x.is_contiguous() && rotations.is_contiguous());
  auto y = at::empty_like(x);
  const std::int64_t count = x.numel() / 2;
  if (count == 0) return y;
  const c10::cuda::CUDAGuard guard(x.device());
  constexpr std::int64_t most_blocks = (std::int64_t{1} << 31) - 1;
  const auto blocks = static_cast<unsigned>(std::min(most_blocks, (count + block - 1) / block));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "rotate", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    turn<scalar_t, wide_t><<<blocks, block, 0, c10::cuda::getCurrentCUDAStream()>>>(
        x.const_data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), rotations.const_data_ptr<c10::complex<wide_t>>(), count,
        x.size(1), x.size(2), x.size(3) / 2, back);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return y;
}

}  // namespace longnet::cuda
