#include "core/layers/cuda/cross_entropy.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDADeviceAssertion.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cuda/vector.h"
#include "core/cuda/warp.h"
#include "core/layers/linear_cross_entropy.h"

namespace longnet::cuda {
namespace {

/// The sum of e^x over some logits, as e^largest * sum: never overflows.
template <typename Wide>
struct ExponentialSum {
  Wide largest = -std::numeric_limits<Wide>::infinity();
  Wide sum = 0;

  template <int length>
  __device__ void add(const Wide (&logits)[length]) {
    Wide larger = largest;
    for (int i = 0; i < length; ++i) larger = logits[i] > larger ? logits[i] : larger;
    if (larger > largest) {
      sum *= exp(largest - larger);
      largest = larger;
    }
    for (int i = 0; i < length; ++i) {  // NaN comes through and stays
      if (logits[i] != -std::numeric_limits<Wide>::infinity()) sum += exp(logits[i] - largest);
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

/// The logits of one row, which threads of a block read and write 16 bytes at a time.
template <typename T, typename Wide>
struct Row {
  static constexpr int length = values_an_access<T>;
  Vector<T, length>* vectors;
  std::int64_t count, vocabulary;  // of vectors; of logits that count

  __device__ void read(std::int64_t vector, Wide (&logits)[length]) const {
    const Vector<T, length> loaded = vectors[vector];
    for (int i = 0; i < length; ++i) {
      logits[i] = vector * length + i < vocabulary ? static_cast<Wide>(loaded.values[i])
                                                   : -std::numeric_limits<Wide>::infinity();
    }
  }

  /// Writes what `value` says of each logit (token, logit), 0 behind the vocabulary.
  template <typename Function>
  __device__ void replace(const Function& value) {
    for (std::int64_t vector = threadIdx.x; vector < count; vector += blockDim.x) {
      Wide logits[length];
      read(vector, logits);
      Vector<T, length> stored;
      for (int i = 0; i < length; ++i) {
        const std::int64_t token = vector * length + i;
        stored.values[i] = static_cast<T>(token < vocabulary ? value(token, logits[i]) : Wide(0));
      }
      vectors[vector] = stored;
    }
  }
};

/// One block a row.
template <typename T, typename Wide>
__global__ void __launch_bounds__(warp* most_warps)
    row_losses(T* __restrict__ logits, const std::int64_t* __restrict__ targets, Wide* __restrict__ losses,
               std::int64_t vocabulary, std::int64_t stride, bool with_gradient) {
  constexpr int length = values_an_access<T>;
  T* begin = logits + static_cast<std::int64_t>(blockIdx.x) * stride;
  Row<T, Wide> row{reinterpret_cast<Vector<T, length>*>(begin), stride / length, vocabulary};
  const std::int64_t target = targets[blockIdx.x];
  if (target == ignored_target) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0;
    if (with_gradient) row.replace([](std::int64_t, Wide) { return Wide(0); });
    return;
  }
  CUDA_KERNEL_ASSERT(target >= 0 && target < vocabulary);

  ExponentialSum<Wide> mine;
  for (std::int64_t vector = threadIdx.x; vector < row.count; vector += blockDim.x) {
    Wide values[length];
    row.read(vector, values);
    mine.add(values);
  }
  mine.add_lanes();
  __shared__ Wide largest[most_warps], sum[most_warps];
  const int lane = static_cast<int>(threadIdx.x) % warp, number = static_cast<int>(threadIdx.x) / warp;
  if (lane == 0) {
    largest[number] = mine.largest;
    sum[number] = mine.sum;
  }
  __syncthreads();
  ExponentialSum<Wide> total;
  for (int other = 0; other < static_cast<int>(blockDim.x) / warp; ++other) {
    total.add(ExponentialSum<Wide>{largest[other], sum[other]});
  }
  const Wide normalizer = total.logarithm();

  if (threadIdx.x == 0) losses[blockIdx.x] = normalizer - static_cast<Wide>(begin[target]);
  if (!with_gradient) return;
  __syncthreads();  // the target's logit has been read
  row.replace([=](std::int64_t token, Wide logit) {
    const Wide probability = exp(logit - normalizer);
    return token == target ? probability - 1 : probability;
  });
}

}  // namespace

at::Tensor cross_entropy(at::Tensor& logits, const at::Tensor& targets, std::int64_t vocabulary, bool with_gradient) {
  const std::int64_t rows = logits.size(0), columns = logits.size(1);
  TORCH_CHECK(logits.is_contiguous() && targets.is_contiguous() && rows < (std::int64_t{1} << 31));
  TORCH_CHECK(vocabulary <= columns && moves_in_vectors(logits, columns));
  auto losses = at::empty({rows}, logits.options().dtype(at::toOpMathType(logits.scalar_type())));
  if (rows == 0) return losses;
  const c10::cuda::CUDAGuard guard(logits.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, logits.scalar_type(), "cross_entropy", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    // As many threads as there are accesses in a row, up to a full block: few rows at a time, so that the cache holds them.
    const std::int64_t accesses = columns / values_an_access<scalar_t>;
    const auto warps = std::clamp<std::int64_t>((accesses + warp - 1) / warp, 1, most_warps);
    row_losses<scalar_t, wide_t>
        <<<static_cast<unsigned>(rows), static_cast<unsigned>(warps * warp), 0, c10::cuda::getCurrentCUDAStream()>>>(
            logits.data_ptr<scalar_t>(), targets.const_data_ptr<std::int64_t>(), losses.data_ptr<wide_t>(), vocabulary,
            columns, with_gradient);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return losses;
}

}  // namespace longnet::cuda
