#include "core/attention/merged_rows.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <limits>

#include "core/attention/cuda/join_parts.h"
#include "core/attention/merge.h"
#include "core/attention/views.h"

namespace longnet {
namespace {

at::TensorOptions wide(const at::TensorOptions& options) {
  return options.dtype(at::toOpMathType(c10::typeMetaToScalarType(options.dtype())));
}

}  // namespace

MergedRows::MergedRows(const at::Tensor& q)
    : options_(q.options()),
      out_(q.is_cuda() ? at::empty(q.sizes(), options_) : at::zeros(q.sizes(), wide(options_))),
      lse_(at::full(q.sizes().slice(0, 3), -std::numeric_limits<double>::infinity(), wide(options_))) {}

void MergedRows::add(const Tile& tile, std::int64_t call, const KernelOutput& result) {
  if (out_.is_cuda()) {
    parts_.push_back({part_rows(tile, tile.queries, call), result.out, result.lse});
    return;
  }
  auto out_rows = tile_view(out_, tile, tile.queries, call);
  auto lse_rows = tile_view(lse_, tile, tile.queries, call);
  merge_attention(out_rows, lse_rows, result.out, result.lse);
}

KernelOutput MergedRows::finish() {
  if (out_.is_cuda()) cuda::merge_parts(parts_, out_, lse_);
  parts_.clear();
  return {out_.to(options_.dtype()), lse_};
}

SummedRows::SummedRows(const at::Tensor& rows) : sizes_(rows.sizes().vec()), options_(rows.options()) {
  if (!rows.is_cuda()) sum_ = at::zeros(sizes_, wide(options_));
}

void SummedRows::add(const Tile& tile, const RowView& view, std::int64_t call, const at::Tensor& gradient) {
  if (sum_.defined()) {
    tile_view(sum_, tile, view, call).add_(gradient);
  } else {
    parts_.push_back({part_rows(tile, view, call), gradient, {}});
  }
}

at::Tensor SummedRows::finish(at::ScalarType dtype) {
  if (sum_.defined()) return sum_.to(dtype);
  auto sum = at::empty(sizes_, options_.dtype(dtype));
  cuda::sum_parts(parts_, sum);
  parts_.clear();
  return sum;
}

}  // namespace longnet
