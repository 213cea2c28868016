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

#include "core/cuda/vector.h"
#include "core/cuda/warp.h"
#include "core/to_device.h"

namespace longnet::cuda {
namespace {

constexpr int block = 256, blocks_a_processor = 4;
constexpr int passes = 4;  // a block joins as many times the rows that it holds at once

/// The rows that one part has for one head of one sequence.
struct Candidate {
  const void* values;                         ///< row 0 of segment 0
  const void* lse;                            ///< null where rows are only summed
  std::int64_t value_steps[2], lse_steps[2];  ///< from a segment to the next, and from a row
  HeadPlaces<std::int32_t> places;
};

/// For each sequence and head (number sequence * heads + head) the candidates begin[number] to begin[number + 1]. A row has at most
/// one of each branch, so that the few that can hold it are all that is looked at.
struct CandidateTable {
  std::vector<Candidate> candidates;
  std::vector<std::int32_t> begin;
};

Candidate candidate_of(const Part& part, std::int64_t sequence, std::int64_t head) {
  const bool segmented = part.rows.segments > 1;
  const auto steps = [&](const at::Tensor& tensor, std::int64_t(&result)[2]) {
    result[0] = segmented ? tensor.stride(0) : 0;
    result[1] = tensor.stride(2);
    const std::int64_t offset = head * tensor.stride(1) + (segmented ? 0 : sequence * tensor.stride(0));
    return static_cast<const char*>(tensor.const_data_ptr()) + offset * tensor.element_size();
  };
  Candidate candidate{};
  candidate.values = steps(part.values, candidate.value_steps);
  if (part.lse.defined()) candidate.lse = steps(part.lse, candidate.lse_steps);
  candidate.places = narrowed(part.rows.places_of(head));
  return candidate;
}

CandidateTable make_table(const std::vector<Part>& parts, std::int64_t sequences, std::int64_t heads) {
  std::vector<std::vector<Candidate>> of(static_cast<std::size_t>(sequences * heads));
  for (const Part& part : parts) {
    const PartRows& rows = part.rows;
    for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
      if (!rows.holds_sequence(sequence)) continue;
      for (std::int64_t head = 0; head < rows.heads; ++head) {
        const std::int64_t number = sequence * heads + rows.first_head + head * rows.head_stride;
        of[static_cast<std::size_t>(number)].push_back(candidate_of(part, sequence, head));
      }
    }
  }
  CandidateTable table;
  table.begin.push_back(0);
  for (const auto& candidates : of) {
    table.candidates.insert(table.candidates.end(), candidates.begin(), candidates.end());
    table.begin.push_back(static_cast<std::int32_t>(table.candidates.size()));
  }
  return table;
}

/// The values of a vector on the GPU.
template <typename T>
at::Tensor upload(const std::vector<T>& values, c10::Device device) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  auto host = at::empty({std::max<std::int64_t>(1, bytes)}, at::kByte);
  if (bytes > 0) std::memcpy(host.data_ptr(), values.data(), static_cast<std::size_t>(bytes));
  return to_device(host, device);
}

/// The rows of the result: sequence by sequence, place by place, head by head. A group of `lanes` neighbouring threads, a power of
/// two, joins a row; blocks of one head after another go through the places.
struct Shape {
  std::int32_t places, heads, width, lanes, places_a_block;
};

/// NaN counts as largest: it must not vanish.
template <typename T>
__device__ T larger(T a, T b) {
  return a > b || a != a ? a : b;
}

template <typename T>
__device__ T largest_of_lanes(T value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value = larger(value, __shfl_xor_sync(all_lanes, value, distance));
  }
  return value;
}

template <typename T>
__device__ T sum_of_lanes(T value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

/// What a lane found for the row of its group: each lane looks at one candidate.
template <typename Value, typename Wide>
struct Found {
  const Value* row = nullptr;
  Wide lse = -std::numeric_limits<Wide>::infinity();

  __device__ void look(const Candidate& candidate, std::int32_t place) {
    const auto at = candidate.places.find(place);
    if (!at.found) return;
    row = static_cast<const Value*>(candidate.values) + at.segment * candidate.value_steps[0] +
          at.row * candidate.value_steps[1];
    if (candidate.lse == nullptr) return;
    lse =
        static_cast<const Wide*>(candidate.lse)[at.segment * candidate.lse_steps[0] + at.row * candidate.lse_steps[1]];
  }
};

/// The softmax-weighted sum of the rows seen so far, relative to the largest log-sum-exp among them; or their plain sum.
template <typename Value, typename Wide, bool Merge, int length>
struct RunningRow {
  Wide largest = -std::numeric_limits<Wide>::infinity(), sum = 0, values[length] = {};

  /// Takes in what the lanes of a group have found. `count`: candidates among them. Called by whole warps.
  __device__ void add(const Found<Value, Wide>& mine, int count, int lanes, std::int32_t channel, bool inside) {
    Wide weight = mine.row != nullptr ? 1 : 0;
    if (Merge) {
      const Wide now = larger(largest, largest_of_lanes(mine.lse, lanes));
      const Wide base = now == -std::numeric_limits<Wide>::infinity() ? Wide(0) : now;  // no key yet: e^-inf, not e^NaN
      weight = exp(mine.lse - base);
      const Wide keep = exp(largest - base);
      sum = sum * keep + sum_of_lanes(weight, lanes);
      for (int i = 0; i < length; ++i) values[i] *= keep;
      largest = now;
    }
    for (int lane = 0; lane < count; ++lane) {
      const auto address = __shfl_sync(all_lanes, reinterpret_cast<unsigned long long>(mine.row), lane, lanes);
      const Wide of_lane = __shfl_sync(all_lanes, weight, lane, lanes);
      if (address != 0 && of_lane != Wide(0) && inside) {
        const auto row =
            *reinterpret_cast<const Vector<Value, length>*>(reinterpret_cast<const Value*>(address) + channel);
        for (int i = 0; i < length; ++i) values[i] += of_lane * static_cast<Wide>(row.values[i]);
      }
    }
  }
};

/// `Merge`: rows are weighted by e^(lse - total), and the total is written; else they are summed.
template <typename Value, typename Result, typename Wide, bool Merge, int length>
__global__ void __launch_bounds__(block, blocks_a_processor)
    join_parts(const Candidate* __restrict__ candidates, const std::int32_t* __restrict__ begins, Shape shape,
               Result* __restrict__ result, Wide* __restrict__ lse) {
  const auto head = static_cast<std::int32_t>(blockIdx.x) % shape.heads;
  const auto chunk = static_cast<std::int32_t>(blockIdx.x) / shape.heads;
  const auto sequence = static_cast<std::int32_t>(blockIdx.y);
  const std::int32_t number = sequence * shape.heads + head, begin = begins[number], count = begins[number + 1] - begin;
  const int lane = static_cast<int>(threadIdx.x) % shape.lanes, group = static_cast<int>(threadIdx.x) / shape.lanes;

  for (int pass = 0; pass < passes; ++pass) {
    const std::int64_t place =
        static_cast<std::int64_t>(chunk) * shape.places_a_block + pass * (block / shape.lanes) + group;
    const bool exists = place < shape.places;  // whole warps go on: lanes speak to each other
    const std::int64_t row = (static_cast<std::int64_t>(sequence) * shape.places + place) * shape.heads + head;
    for (std::int32_t base = 0; base < shape.width; base += shape.lanes * length) {
      const std::int32_t channel = base + lane * length;
      const bool inside = exists && channel < shape.width;
      RunningRow<Value, Wide, Merge, length> running;
      for (std::int32_t first = 0; first < count; first += shape.lanes) {
        Found<Value, Wide> mine;
        if (exists && first + lane < count)
          mine.look(candidates[begin + first + lane], static_cast<std::int32_t>(place));
        running.add(mine, min(shape.lanes, count - first), shape.lanes, channel, inside);
      }
      const bool empty = Merge && running.largest == -std::numeric_limits<Wide>::infinity();
      if (Merge && exists && base == 0 && lane == 0)
        lse[row] = empty ? running.largest : running.largest + log(running.sum);
      if (inside) {
        const Wide scale = !Merge ? Wide(1) : empty ? Wide(0) : 1 / running.sum;
        Vector<Result, length> joined;
        for (int i = 0; i < length; ++i) joined.values[i] = static_cast<Result>(running.values[i] * scale);
        *reinterpret_cast<Vector<Result, length>*>(result + row * shape.width + channel) = joined;
      }
    }
  }
}

/// The smallest power of two that is not less, up to a warp.
std::int32_t lanes_for(std::int64_t count) {
  std::int32_t lanes = 1;
  while (lanes < warp && lanes < count) lanes *= 2;
  return lanes;
}

std::int32_t as_int32(std::int64_t value) {
  TORCH_CHECK(value <= std::numeric_limits<std::int32_t>::max(), "attention on a GPU: too many rows in one tensor");
  return static_cast<std::int32_t>(value);
}

template <typename Value, typename Result, bool Merge, int length>
void launch_in_steps(const std::vector<Part>& parts, at::Tensor& result, void* lse) {
  using Wide = at::opmath_type<Value>;
  const std::int64_t sequences = result.size(0), places = result.size(1), heads = result.size(2),
                     width = result.size(3);
  if (result.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(result.device());
  const CandidateTable table = make_table(parts, sequences, heads);
  std::int64_t most = 0;
  for (std::size_t i = 1; i < table.begin.size(); ++i)
    most = std::max<std::int64_t>(most, table.begin[i] - table.begin[i - 1]);
  const auto candidates = upload(table.candidates, result.device()), begins = upload(table.begin, result.device());
  const std::int32_t lanes = lanes_for(std::max((width + length - 1) / length, most));
  const std::int32_t places_a_block = passes * (block / lanes);
  const Shape shape{as_int32(places), as_int32(heads), as_int32(width), lanes, places_a_block};
  const std::int64_t chunks = (places + places_a_block - 1) / places_a_block;
  TORCH_CHECK(sequences < 65536, "attention on a GPU: more than 65,535 sequences in a batch");
  const dim3 grid(static_cast<unsigned>(as_int32(chunks * heads)), static_cast<unsigned>(sequences));
  join_parts<Value, Result, Wide, Merge, length><<<grid, block, 0, c10::cuda::getCurrentCUDAStream()>>>(
      static_cast<const Candidate*>(candidates.const_data_ptr()),
      static_cast<const std::int32_t*>(begins.const_data_ptr()), shape, static_cast<Result*>(result.data_ptr()),
      static_cast<Wide*>(lse));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename Value, typename Result, bool Merge>
void launch(const std::vector<Part>& parts, at::Tensor& result, void* lse) {
  constexpr int length = values_an_access<Value>;
  const std::int64_t width = result.size(3);
  const bool vectors = width % length == 0 && std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
                         return moves_in_vectors(part.values, width);
                       });
  if (vectors) {
    launch_in_steps<Value, Result, Merge, length>(parts, result, lse);
  } else {
    launch_in_steps<Value, Result, Merge, 1>(parts, result, lse);
  }
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
