#include "core/layers/cuda/rotary.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/complex.h>

#include "core/cuda/vector.h"

namespace longnet::cuda {
namespace {

constexpr int block = 256, blocks_a_processor = 4;

/// One thread some neighbouring channels of all heads of a position, which are turned alike.
template <typename T, typename Wide, int length>
__global__ void __launch_bounds__(block, blocks_a_processor)
    turn(const T* __restrict__ x, T* __restrict__ y, const c10::complex<Wide>* __restrict__ rotations,
         std::int64_t count, std::int64_t positions, std::int64_t heads, std::int64_t vectors, bool back) {
  constexpr int pairs = length / 2;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * block + threadIdx.x;
  if (index >= count) return;
  const std::int64_t vector = index % vectors, token = index / vectors;
  c10::complex<Wide> mine[pairs];
  for (int pair = 0; pair < pairs; ++pair) {
    mine[pair] = rotations[(token % positions * vectors + vector) * pairs + pair];
    if (back) mine[pair] = std::conj(mine[pair]);
  }
  const auto* from = reinterpret_cast<const Vector<T, length>*>(x) + token * heads * vectors + vector;
  auto* to = reinterpret_cast<Vector<T, length>*>(y) + token * heads * vectors + vector;
  for (std::int64_t head = 0; head < heads; ++head) {
    const Vector<T, length> old = from[head * vectors];
    Vector<T, length> turned;
    for (int pair = 0; pair < pairs; ++pair) {
      const Wide a = static_cast<Wide>(old.values[2 * pair]), b = static_cast<Wide>(old.values[2 * pair + 1]);
      const Wide cosine = mine[pair].real(), sine = mine[pair].imag();
      turned.values[2 * pair] = static_cast<T>(a * cosine - b * sine);
      turned.values[2 * pair + 1] = static_cast<T>(b * cosine + a * sine);
    }
    to[head * vectors] = turned;
  }
}

template <typename T, int length>
void launch(const at::Tensor& x, at::Tensor& y, const at::Tensor& rotations, bool back) {
  using Wide = at::opmath_type<T>;
  const std::int64_t vectors = x.size(3) / length, count = x.size(0) * x.size(1) * vectors;
  const std::int64_t blocks = (count + block - 1) / block;
  TORCH_CHECK(blocks < (std::int64_t{1} << 31));
  turn<T, Wide, length><<<static_cast<unsigned>(blocks), block, 0, c10::cuda::getCurrentCUDAStream()>>>(
      x.const_data_ptr<T>(), y.data_ptr<T>(), rotations.const_data_ptr<c10::complex<Wide>>(), count, x.size(1),
      x.size(2), vectors, back);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, const at::Tensor& rotations, bool back) {
  TORCH_CHECK(x.is_contiguous() && rotations.is_contiguous());
  auto y = at::empty_like(x);
  if (x.numel() == 0) return y;
  const c10::cuda::CUDAGuard guard(x.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "rotate", [&] {
    if (moves_in_vectors(x, x.size(3))) {
      launch<scalar_t, values_an_access<scalar_t>>(x, y, rotations, back);
    } else {
      launch<scalar_t, 2>(x, y, rotations, back);
    }
  });
  return y;
}

}  // namespace longnet::cuda
