#include "core/attention/cuda/join_parts.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace longnet::cuda {
namespace {

constexpr int warp = 32, warps_a_block = 8;
constexpr unsigned all_lanes = 0xffffffffU;

/// A part as the GPU sees it.
struct DevicePart {
  PartRows rows;
  const void* values;
  const void* lse;
  std::int64_t value_strides[3], lse_strides[3];

  __device__ std::int64_t value_offset(const PartRows::Index& at) const {
    return at.batch * value_strides[0] + at.head * value_strides[1] + at.row * value_strides[2];
  }
  __device__ std::int64_t lse_offset(const PartRows::Index& at) const {
    return at.batch * lse_strides[0] + at.head * lse_strides[1] + at.row * lse_strides[2];
  }
};

/// The rows of the result: sequence by sequence, place by place, head by head.
struct Shape {
  std::int64_t rows, places, heads, width;
};

/// NaN counts as largest: it must not vanish.
template <typename T>
__device__ T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <typename T>
__device__ T largest_of_lanes(T value) {
  for (int distance = warp / 2; distance > 0; distance /= 2) {
    value = larger(value, __shfl_xor_sync(all_lanes, value, distance));
  }
  return value;
}

template <typename T>
__device__ T sum_of_lanes(T value) {
  for (int distance = warp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

/// What a lane found for one row of the result: each lane looks into one part of 32.
template <typename Value, typename Wide>
struct Found {
  const Value* row;  // null: nothing
  Wide lse;

  __device__ static Found look(const DevicePart* parts, std::int64_t count, std::int64_t number, std::int64_t sequence,
                               std::int64_t place, std::int64_t head) {
    Found found{nullptr, -std::numeric_limits<Wide>::infinity()};
    if (number >= count) return found;
    const DevicePart& part = parts[number];
    const PartRows::Index at = part.rows.find(sequence, place, head);
    if (!at.found) return found;
    found.row = static_cast<const Value*>(part.values) + part.value_offset(at);
    if (part.lse != nullptr) found.lse = static_cast<const Wide*>(part.lse)[part.lse_offset(at)];
    return found;
  }
};

/// One warp a row. `Merge`: rows are weighted by e^(lse - total), and the total is written; else they are summed.
template <typename Value, typename Result, typename Wide, bool Merge>
__global__ void __launch_bounds__(warp* warps_a_block)
    join_parts(const DevicePart* __restrict__ parts, std::int64_t count, Shape shape, Result* __restrict__ result,
               Wide* __restrict__ lse) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * warps_a_block;
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * warps_a_block + threadIdx.x / warp;
  for (; row < shape.rows; row += warps) {
    const std::int64_t token = row / shape.heads, head = row % shape.heads;
    const std::int64_t sequence = token / shape.places, place = token % shape.places;
    const auto look = [&](std::int64_t first) {
      return Found<Value, Wide>::look(parts, count, first + lane, sequence, place, head);
    };

    Wide total = 0;
    if (Merge) {
      Wide largest = -std::numeric_limits<Wide>::infinity();
      for (std::int64_t first = 0; first < count; first += warp)
        largest = larger(largest, largest_of_lanes(look(first).lse));
      if (largest == -std::numeric_limits<Wide>::infinity()) {
        total = largest;  // no key: e^(lse - total) must not be computed
      } else {
        Wide sum = 0;
        for (std::int64_t first = 0; first < count; first += warp) sum += sum_of_lanes(exp(look(first).lse - largest));
        total = largest + log(sum);
      }
      if (lane == 0) lse[row] = total;
    }

    for (std::int64_t base = 0; base < shape.width; base += warp) {
      const std::int64_t channel = base + lane;
      Wide value = 0;
      for (std::int64_t first = 0; first < count; first += warp) {
        const Found<Value, Wide> mine = look(first);
        Wide weight = 1;
        if (Merge) weight = mine.lse == -std::numeric_limits<Wide>::infinity() ? Wide(0) : exp(mine.lse - total);
        unsigned holders = __ballot_sync(all_lanes, mine.row != nullptr && weight != Wide(0));
        while (holders != 0) {
          const int holder = __ffs(static_cast<int>(holders)) - 1;
          holders &= holders - 1;
          const auto address = __shfl_sync(all_lanes, reinterpret_cast<unsigned long long>(mine.row), holder);
          const Wide of_holder = __shfl_sync(all_lanes, weight, holder);
          if (channel < shape.width) {
            value += of_holder * static_cast<Wide>(reinterpret_cast<const Value*>(address)[channel]);
          }
        }
      }
      if (channel < shape.width) result[row * shape.width + channel] = static_cast<Result>(value);
    }
  }
}

void set_strides(const at::Tensor& tensor, std::int64_t (&strides)[3]) {
  for (int dimension = 0; dimension < 3; ++dimension) strides[dimension] = tensor.stride(dimension);
}

/// The parts' descriptions in the GPU's memory; they get there without a wait.
at::Tensor on_device(const std::vector<Part>& parts, c10::Device device) {
  const auto bytes = static_cast<std::int64_t>(std::max<std::size_t>(1, parts.size()) * sizeof(DevicePart));
  auto host = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  auto* described = reinterpret_cast<DevicePart*>(host.data_ptr());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    DevicePart part{parts[i].rows, parts[i].values.const_data_ptr(), nullptr, {}, {}};
    set_strides(parts[i].values, part.value_strides);
    if (parts[i].lse.defined()) {
      part.lse = parts[i].lse.const_data_ptr();
      set_strides(parts[i].lse, part.lse_strides);
    }
    std::memcpy(described + i, &part, sizeof part);
  }
  return host.to(device, /*non_blocking=*/true);
}

template <typename Value, typename Result, bool Merge>
void launch(const std::vector<Part>& parts, at::Tensor& result, void* lse) {
  using Wide = at::opmath_type<Value>;
  const Shape shape{result.size(0) * result.size(1) * result.size(2), result.size(1), result.size(2), result.size(3)};
  if (shape.rows == 0) return;
  const c10::cuda::CUDAGuard guard(result.device());
  const auto described = on_device(parts, result.device());
  constexpr std::int64_t most_blocks = (std::int64_t{1} << 31) - 1;
  const auto blocks = std::min(most_blocks, (shape.rows + warps_a_block - 1) / warps_a_block);
  join_parts<Value, Result, Wide, Merge>
      <<<static_cast<unsigned>(blocks), warp * warps_a_block, 0, c10::cuda::getCurrentCUDAStream()>>>(
          reinterpret_cast<const DevicePart*>(described.const_data_ptr()), static_cast<std::int64_t>(parts.size()),
          shape, static_cast<Result*>(result.data_ptr()), static_cast<Wide*>(lse));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

void merge_parts(const std::vector<Part>& parts, at::Tensor& out, at::Tensor& lse) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, out.scalar_type(), "merge_parts",
                                  [&] { launch<scalar_t, scalar_t, true>(parts, out, lse.data_ptr()); });
}

void sum_parts(const std::vector<Part>& parts, at::Tensor& sum) {
  if (parts.empty()) {
    sum.zero_();
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, parts[0].values.scalar_type(), "sum_parts", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    if (sum.scalar_type() == parts[0].values.scalar_type()) {
      launch<scalar_t, scalar_t, false>(parts, sum, nullptr);
    } else {
      TORCH_CHECK(sum.scalar_type() == c10::CppTypeToScalarType<wide_t>::value, "sum_parts: the sum's dtype");
      launch<scalar_t, wide_t, false>(parts, sum, nullptr);
    }
  });
}

}  // namespace longnet::cuda
