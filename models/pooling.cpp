#include "models/pooling.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include "core/to_device.h"

namespace longnet {
namespace {

/// (B, n, 1): 1 / the number of positions that count, 0 for all others.
at::Tensor mean_weights(const at::Tensor& x, std::int64_t prefix, const Batch& batch) {
  const auto lengths = to_device(at::tensor(batch.lengths, at::kLong), x.device()).unsqueeze(1);
  const auto position = at::arange(batch.shard.own.begin, batch.shard.own.end, lengths.options()).unsqueeze(0);
  const auto counts = position.ge(prefix).logical_and(position.lt(lengths));
  return counts.to(x.scalar_type()).div(lengths - prefix).unsqueeze(-1);
}

at::Tensor first_row(const at::Tensor& x, const Batch& batch) {
  if (batch.shard.is_first()) return x.select(1, 0);
  return x.sum(1) * 0;  // of the shape of a row, and a part of the graph on every rank
}

}  // namespace

at::Tensor pool(const at::Tensor& x, Pooling pooling, std::int64_t prefix, const Batch& batch,
                const SequenceParallel& parallel) {
  const auto wide = x.to(at::toOpMathType(x.scalar_type()));
  if (pooling == Pooling::ClassToken) return parallel.sum(first_row(wide, batch));
  return parallel.sum((wide * mean_weights(wide, prefix, batch)).sum(1));
}

}  // namespace longnet
