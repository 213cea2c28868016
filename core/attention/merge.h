#pragma once

#include <ATen/core/Tensor.h>

namespace longnet {

/// Joins the attention of the same queries over more keys into a running result, in place:
///
///     m = log(e^lse + e^lse_part),  out = out * e^(lse - m) + out_part * e^(lse_part - m),  lse = m
///
/// which is softmax attention over both sets of keys (LongNet, section 2.3). out (batch, heads, rows, D) and lse
/// (batch, heads, rows) are float32 or float64 and may be strided views; rows that have seen no key hold 0 and -inf.
/// out_part is of out's dtype or, with a float32 out, bfloat16; lse_part is of lse's dtype.
void merge_attention(at::Tensor& out, at::Tensor& lse, const at::Tensor& out_part, const at::Tensor& lse_part);

}  // namespace longnet
