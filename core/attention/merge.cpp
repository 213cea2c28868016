#include "core/attention/merge.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace longnet {
namespace {

/// A tensor (batch, heads, rows[, D]) as a base pointer and strides; D is contiguous.
template <typename T>
struct Rows {
  T* base;
  std::int64_t batch_stride, head_stride, row_stride;

  explicit Rows(const at::Tensor& tensor)
      : base(tensor.data_ptr<std::remove_const_t<T>>()),
        batch_stride(tensor.stride(0)),
        head_stride(tensor.stride(1)),
        row_stride(tensor.stride(2)) {}

  T* operator()(std::int64_t batch, std::int64_t head, std::int64_t row) const {
    return base + batch * batch_stride + head * head_stride + row * row_stride;
  }
};

template <typename Running, typename Part>
void merge_row(Running* out, Running& lse, const Part* out_part, Running lse_part, std::int64_t width) {
  constexpr Running nothing = -std::numeric_limits<Running>::infinity();
  if (lse_part == nothing) return;
  if (lse == nothing) {
    for (std::int64_t d = 0; d < width; ++d) out[d] = static_cast<Running>(out_part[d]);
    lse = lse_part;
    return;
  }
  const Running larger = std::max(lse, lse_part);
  const Running merged = larger + std::log1p(std::exp(std::min(lse, lse_part) - larger));
  const Running keep = std::exp(lse - merged);
  const Running add = std::exp(lse_part - merged);
  for (std::int64_t d = 0; d < width; ++d) out[d] = out[d] * keep + static_cast<Running>(out_part[d]) * add;
  lse = merged;
}

template <typename Running, typename Part>
void merge_rows(const at::Tensor& out, const at::Tensor& lse, const at::Tensor& out_part, const at::Tensor& lse_part) {
  const Rows<Running> running(out), running_lse(lse);
  const Rows<const Part> part(out_part);
  const Rows<const Running> part_lse(lse_part);
  const std::int64_t heads = out.size(1), rows = out.size(2), width = out.size(3);
  constexpr std::int64_t grain = 256;  // rows: some 100 KiB of traffic a task
  at::parallel_for(0, out.size(0) * heads * rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t index = begin; index < end; ++index) {
      const std::int64_t row = index % rows, head = index / rows % heads, batch = index / rows / heads;
      merge_row(running(batch, head, row), *running_lse(batch, head, row), part(batch, head, row),
                *part_lse(batch, head, row), width);
    }
  });
}

/// For the few rows that generation merges on a GPU; a training step joins them in cuda/join_parts.
void merge_rows_by_operators(at::Tensor& out, at::Tensor& lse, const at::Tensor& out_part, const at::Tensor& lse_part) {
  const auto merged = at::logaddexp(lse, lse_part);
  const auto weight = [&](const at::Tensor& of) {
    const auto nothing = of.eq(-std::numeric_limits<double>::infinity());
    return (of - merged).exp_().masked_fill_(nothing, 0).unsqueeze(-1);
  };
  out.mul_(weight(lse)).add_(out_part * weight(lse_part));
  lse.copy_(merged);
}

}  // namespace

void merge_attention(at::Tensor& out, at::Tensor& lse, const at::Tensor& out_part, const at::Tensor& lse_part) {
  if (out.is_cuda()) return merge_rows_by_operators(out, lse, out_part, lse_part);
  const auto running = out.scalar_type(), part = out_part.scalar_type();
  if (running == at::kDouble && part == at::kDouble) return merge_rows<double, double>(out, lse, out_part, lse_part);
  if (running == at::kFloat && part == at::kFloat) return merge_rows<float, float>(out, lse, out_part, lse_part);
  if (running == at::kFloat && part == at::kBFloat16) {
    return merge_rows<float, c10::BFloat16>(out, lse, out_part, lse_part);
  }
  throw Error(std::string("cannot merge attention of ") + c10::toString(part) + " into " + c10::toString(running));
}

}  // namespace longnet
