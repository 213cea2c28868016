#include "core/layers/cuda/cross_entropy.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDADeviceAssertion.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cmath>
#include <limits>

#include "core/layers/linear_cross_entropy.h"

namespace longnet::cuda {
namespace {

constexpr int warp = 32, block = 512;
constexpr unsigned all_lanes = 0xffffffffU;

/// The sum of e^x over some logits, as e^largest * sum: never overflows.
template <typename Wide>
struct ExponentialSum {
  Wide largest = -std::numeric_limits<Wide>::infinity();
  Wide sum = 0;

  __device__ void add(Wide x) {
    if (x > largest) {
      sum = sum * exp(largest - x) + 1;
      largest = x;
    } else if (x != -std::numeric_limits<Wide>::infinity()) {  // NaN comes here and stays
      sum += exp(x - largest);
    }
  }

  __device__ void add(const ExponentialSum& other) {
    const Wide larger = largest > other.largest ? largest : other.largest;
    if (larger == -std::numeric_limits<Wide>::infinity()) {
      sum += other.sum;  // 0, or NaN
      return;
    }
    sum = sum * exp(largest - larger) + other.sum * exp(other.largest - larger);
    largest = larger;
  }

  __device__ void add_lanes() {
    for (int distance = warp / 2; distance > 0; distance /= 2) {
      add(ExponentialSum{__shfl_xor_sync(all_lanes, largest, distance), __shfl_xor_sync(all_lanes, sum, distance)});
    }
  }

  __device__ Wide logarithm() const { return largest + log(sum); }
};

/// One block a row.
template <typename T, typename Wide>
__global__ void __launch_bounds__(block)
    row_losses(T* __restrict__ logits, const std::int64_t* __restrict__ targets, Wide* __restrict__ losses,
               std::int64_t vocabulary, bool with_gradient) {
  T* row = logits + static_cast<std::int64_t>(blockIdx.x) * vocabulary;
  const std::int64_t target = targets[blockIdx.x];
  if (target == ignored_target) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0;
    if (with_gradient) {
      for (std::int64_t token = threadIdx.x; token < vocabulary; token += block) row[token] = T(0);
    }
    return;
  }
  CUDA_KERNEL_ASSERT(target >= 0 && target < vocabulary);

  ExponentialSum<Wide> mine;
  for (std::int64_t token = threadIdx.x; token < vocabulary; token += block) mine.add(static_cast<Wide>(row[token]));
  mine.add_lanes();
  __shared__ Wide largest[block / warp], sum[block / warp];
  const int lane = static_cast<int>(threadIdx.x) % warp, number = static_cast<int>(threadIdx.x) / warp;
  if (lane == 0) {
    largest[number] = mine.largest;
    sum[number] = mine.sum;
  }
  __syncthreads();
  ExponentialSum<Wide> total;
  for (int other = 0; other < block / warp; ++other) total.add(ExponentialSum<Wide>{largest[other], sum[other]});
  const Wide normalizer = total.logarithm();

  if (threadIdx.x == 0) losses[blockIdx.x] = normalizer - static_cast<Wide>(row[target]);
  if (!with_gradient) return;
  __syncthreads();  // the target's logit has been read
  for (std::int64_t token = threadIdx.x; token < vocabulary; token += block) {
    const Wide probability = exp(static_cast<Wide>(row[token]) - normalizer);
    row[token] = static_cast<T>(token == target ? probability - 1 : probability);
  }
}

}  // namespace

at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, bool with_gradient) {
  const std::int64_t rows = logits.size(0);
  TORCH_CHECK(logits.is_contiguous() && targets.is_contiguous() && rows < (std::int64_t{1} << 31));
  auto losses = at::empty({rows}, logits.options().dtype(at::toOpMathType(logits.scalar_type())));
  if (rows == 0) return losses;
  const c10::cuda::CUDAGuard guard(logits.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, logits.scalar_type(), "cross_entropy", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    row_losses<scalar_t, wide_t><<<static_cast<unsigned>(rows), block, 0, c10::cuda::getCurrentCUDAStream()>>>(
        logits.data_ptr<scalar_t>(), targets.const_data_ptr<std::int64_t>(), losses.data_ptr<wide_t>(), logits.size(1),
        with_gradient);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return losses;
}

}  // namespace longnet::cuda
