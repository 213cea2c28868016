#include "core/layers/cuda/layer_norm.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "core/cuda/vector.h"
#include "core/cuda/warp.h"

namespace longnet::cuda {
namespace {

/// Two sums over all threads of a block, which all get. `scratch` must not be in use by a sum before it.
template <typename Wide>
struct PairSum {
  Wide first, second;

  __device__ void over_block(PairSum (&scratch)[most_warps]) {
    for (int distance = warp / 2; distance > 0; distance /= 2) {
      first += __shfl_xor_sync(all_lanes, first, distance);
      second += __shfl_xor_sync(all_lanes, second, distance);
    }
    const int warps = static_cast<int>(blockDim.x) / warp;
    if (warps == 1) return;
    if (threadIdx.x % warp == 0) scratch[threadIdx.x / warp] = *this;
    __syncthreads();
    *this = scratch[0];
    for (int number = 1; number < warps; ++number) {
      first += scratch[number].first;
      second += scratch[number].second;
    }
  }
};

/// The values of one access of a row; zeros for the threads of the last warp that have none.
template <typename T, typename Wide, int length>
__device__ void read(const T* row, bool inside, Wide (&values)[length]) {
  Vector<T, length> loaded{};
  if (inside) loaded = reinterpret_cast<const Vector<T, length>*>(row)[threadIdx.x];
  for (int i = 0; i < length; ++i) values[i] = static_cast<Wide>(loaded.values[i]);
}

/// One block a row.
template <typename T, typename Wide>
__global__ void __launch_bounds__(warp* most_warps)
    normalize(const T* __restrict__ x, const Wide* __restrict__ weight, const Wide* __restrict__ bias,
              T* __restrict__ y, Wide* __restrict__ means, Wide* __restrict__ inverse_deviations, std::int64_t width,
              Wide epsilon) {
  constexpr int length = values_an_access<T>;
  __shared__ PairSum<Wide> of_means[most_warps], of_squares[most_warps];
  const std::int64_t row = blockIdx.x, begin = row * width, channel = static_cast<std::int64_t>(threadIdx.x) * length;
  const bool inside = channel < width;
  Wide values[length];
  read(x + begin, inside, values);

  PairSum<Wide> sum{0, 0};
  for (int i = 0; i < length; ++i) sum.first += values[i];
  sum.over_block(of_means);
  const Wide mean = sum.first / static_cast<Wide>(width);
  PairSum<Wide> squares{0, 0};  // of what is left of the mean, so that a large mean costs no digits
  for (int i = 0; i < length; ++i) squares.first += inside ? (values[i] - mean) * (values[i] - mean) : Wide(0);
  squares.over_block(of_squares);
  const Wide inverse_deviation = rsqrt(squares.first / static_cast<Wide>(width) + epsilon);

  if (threadIdx.x == 0) {
    means[row] = mean;
    inverse_deviations[row] = inverse_deviation;
  }
  if (!inside) return;
  Vector<T, length> result;
  for (int i = 0; i < length; ++i) {
    result.values[i] = static_cast<T>((values[i] - mean) * inverse_deviation * weight[channel + i] + bias[channel + i]);
  }
  *reinterpret_cast<Vector<T, length>*>(y + begin + channel) = result;
}

/// A block goes through every gridDim.x-th row. Each thread stays with its channels, and sums the gradients of their weights and
/// biases into the block's row of `weight_parts` and `bias_parts` (gridDim.x, C).
template <typename T, typename Wide>
__global__ void __launch_bounds__(warp* most_warps)
    normalize_backward(const T* __restrict__ gradient, const T* __restrict__ x, const Wide* __restrict__ weight,
                       const Wide* __restrict__ means, const Wide* __restrict__ inverse_deviations,
                       T* __restrict__ x_gradient, Wide* __restrict__ weight_parts, Wide* __restrict__ bias_parts,
                       std::int64_t rows, std::int64_t width) {
  constexpr int length = values_an_access<T>;
  __shared__ PairSum<Wide> scratch[2][most_warps];  // in turns: one is read while the next row's is written
  const std::int64_t channel = static_cast<std::int64_t>(threadIdx.x) * length;
  const bool inside = channel < width;
  Wide weights[length], of_weights[length] = {}, of_biases[length] = {};
  for (int i = 0; i < length; ++i) weights[i] = inside ? weight[channel + i] : Wide(0);

  int turn = 0;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    Wide gradients[length], normalized[length];
    read(gradient + row * width, inside, gradients);
    read(x + row * width, inside, normalized);
    const Wide mean = means[row], inverse_deviation = inverse_deviations[row];
    PairSum<Wide> sums{0, 0};
    for (int i = 0; i < length; ++i) {
      normalized[i] = inside ? (normalized[i] - mean) * inverse_deviation : Wide(0);
      of_weights[i] += gradients[i] * normalized[i];
      of_biases[i] += gradients[i];
      gradients[i] *= weights[i];
      sums.first += gradients[i];
      sums.second += gradients[i] * normalized[i];
    }
    sums.over_block(scratch[turn]);
    if (!inside) continue;
    const Wide mean_gradient = sums.first / static_cast<Wide>(width), slope = sums.second / static_cast<Wide>(width);
    Vector<T, length> result;
    for (int i = 0; i < length; ++i) {
      result.values[i] = static_cast<T>((gradients[i] - mean_gradient - normalized[i] * slope) * inverse_deviation);
    }
    *reinterpret_cast<Vector<T, length>*>(x_gradient + row * width + channel) = result;
  }
  if (!inside) return;
  for (int i = 0; i < length; ++i) {
    weight_parts[static_cast<std::int64_t>(blockIdx.x) * width + channel + i] = of_weights[i];
    bias_parts[static_cast<std::int64_t>(blockIdx.x) * width + channel + i] = of_biases[i];
  }
}

unsigned threads_for(std::int64_t width, std::int64_t length) {
  return static_cast<unsigned>((width / length + warp - 1) / warp * warp);
}

at::ScalarType wide_type(const at::Tensor& x) {
  return at::toOpMathType(x.scalar_type());
}

void require_fit(const at::Tensor& x, const at::Tensor& weight) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && weight.is_contiguous() && weight.numel() == x.size(1));
  TORCH_CHECK(takes_layer_norm(x.size(1), x.scalar_type()) && moves_in_vectors(x, x.size(1)));
  TORCH_CHECK(weight.scalar_type() == wide_type(x) && x.size(0) < (std::int64_t{1} << 31));
}

}  // namespace

bool takes_layer_norm(std::int64_t width, at::ScalarType dtype) {
  const std::int64_t length = access_bytes / static_cast<std::int64_t>(c10::elementSize(dtype));
  return width % length == 0 && width / length <= warp * most_warps;
}

LayerNormOutput layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon) {
  require_fit(x, weight);
  const std::int64_t rows = x.size(0), width = x.size(1);
  const auto statistic = [&] { return at::empty({rows}, x.options().dtype(wide_type(x))); };
  LayerNormOutput output{at::empty_like(x), statistic(), statistic()};
  if (x.numel() == 0) return output;
  const c10::cuda::CUDAGuard guard(x.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "layer_norm", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const unsigned threads = threads_for(width, values_an_access<scalar_t>);
    normalize<scalar_t, wide_t><<<static_cast<unsigned>(rows), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        x.const_data_ptr<scalar_t>(), weight.const_data_ptr<wide_t>(), bias.const_data_ptr<wide_t>(),
        output.y.data_ptr<scalar_t>(), output.mean.data_ptr<wide_t>(), output.inverse_deviation.data_ptr<wide_t>(),
        width, static_cast<wide_t>(epsilon));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

LayerNormGradients layer_norm_backward(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& weight,
                                       const at::Tensor& mean, const at::Tensor& inverse_deviation) {
  require_fit(x, weight);
  require_fit(gradient, weight);
  const std::int64_t rows = x.size(0), width = x.size(1);
  if (x.numel() == 0) return {at::empty_like(x), at::zeros_like(weight), at::zeros_like(weight)};
  const c10::cuda::CUDAGuard guard(x.device());
  LayerNormGradients result{at::empty_like(x), {}, {}};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "layer_norm_backward", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const unsigned threads = threads_for(width, values_an_access<scalar_t>);
    // As many blocks as run at a time, or fewer: each leaves two rows of sums behind.
    const std::int64_t at_a_time = std::clamp<std::int64_t>(1024 / threads, 1, 8);
    const std::int64_t processors = at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
    const std::int64_t blocks = std::min(rows, at_a_time * processors);
    const auto weights = at::empty({blocks, width}, weight.options()),
               biases = at::empty({blocks, width}, weight.options());
    normalize_backward<scalar_t, wide_t>
        <<<static_cast<unsigned>(blocks), threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
            gradient.const_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), weight.const_data_ptr<wide_t>(),
            mean.const_data_ptr<wide_t>(), inverse_deviation.const_data_ptr<wide_t>(), result.x.data_ptr<scalar_t>(),
            weights.data_ptr<wide_t>(), biases.data_ptr<wide_t>(), rows, width);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    result.weight = weights.sum(0);
    result.bias = biases.sum(0);
  });
  return result;
}

}  // namespace longnet::cuda
