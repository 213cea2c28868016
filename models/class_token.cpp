#include "models/class_token.h"

#include <ATen/ATen.h>

namespace longnet {

at::Tensor with_class_token(const at::Tensor& x, const at::Tensor& token, const SequenceShard& shard) {
  if (!shard.is_first()) return x;
  return at::cat({token.to(x.scalar_type()).expand({x.size(0), 1, -1}), x}, 1);
}

at::Tensor without_class_token(const at::Tensor& x, const SequenceShard& shard) {
  return shard.is_first() ? x.slice(1, 1) : x;
}

}  // namespace longnet
