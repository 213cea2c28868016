#include "core/layers/cuda/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "core/to_device.h"

namespace longnet::cuda {
namespace {

constexpr int block = 256;

/// One thread a draw, so four channels.
template <typename T>
__global__ void __launch_bounds__(block)
    drop(const T* __restrict__ input, T* __restrict__ output, DropoutMask mask,
         const std::int64_t* __restrict__ samples, std::int64_t sequences, std::int64_t rows, std::int64_t channels) {
  const std::int64_t draws = (channels + DropoutMask::channels_a_draw - 1) / DropoutMask::channels_a_draw;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * block;
  const auto keep = static_cast<at::opmath_type<T>>(mask.keep);
  std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * block + threadIdx.x;
  for (; index < sequences * rows * draws; index += threads) {
    const std::int64_t token = index / draws, draw = index % draws;
    at::Philox4_32 numbers = mask.numbers(samples[token / rows], token % rows, channels, draw);
    const std::int64_t first = draw * DropoutMask::channels_a_draw;
    for (std::int64_t channel = first; channel < first + DropoutMask::channels_a_draw && channel < channels;
         ++channel) {
      const std::int64_t at = token * channels + channel;
      output[at] = numbers() < mask.threshold ? T(0) : static_cast<T>(input[at] * keep);
    }
  }
}

}  // namespace

void dropout(const at::Tensor& input, at::Tensor& output, const DropoutMask& mask,
             const std::vector<std::int64_t>& samples) {
  if (input.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(input.device());
  const auto on_device = to_device(at::tensor(samples, at::kLong), input.device());
  constexpr std::int64_t most_blocks = (std::int64_t{1} << 31) - 1;
  const std::int64_t draws = input.size(0) * input.size(1) * ((input.size(2) + 3) / 4);
  const auto blocks = static_cast<unsigned>(std::min(most_blocks, (draws + block - 1) / block));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "dropout", [&] {
    drop<scalar_t><<<blocks, block, 0, c10::cuda::getCurrentCUDAStream()>>>(
        input.const_data_ptr<scalar_t>(), output.data_ptr<scalar_t>(), mask, on_device.const_data_ptr<std::int64_t>(),
        input.size(0), input.size(1), input.size(2));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace longnet::cuda
