#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/attention/kernel.h"
#include "core/attention/part.h"
#include "core/attention/rows.h"

/// The results of all kernel calls, brought together row by row.
///
/// On the CPU a result is merged at once, while it is in the caches. On a GPU the results wait in the narrow dtype in
/// which the kernels wrote them, and one kernel reads each once and writes the final row: a running result in float32
/// would cost several times the memory traffic.
namespace longnet {

/// Attention of the same queries over several sets of keys, joined into one softmax (LongNet, section 2.3).
class MergedRows {
 public:
  /// For queries like q (B, n, H, D).
  explicit MergedRows(const at::Tensor& q);

  /// The result of the call `call` of `tile` (see views.h).
  void add(const Tile& tile, std::int64_t call, const KernelOutput& result);

  /// (B, n, H, D) of q's dtype, and lse (B, n, H): 0 and -inf for a query that no call served. Ends this object's use.
  KernelOutput finish();

 private:
  at::TensorOptions options_;  ///< q's
  at::Tensor out_, lse_;
  std::vector<Part> parts_;
};

/// Gradients of the same rows from several calls, summed.
class SummedRows {
 public:
  /// For rows like those of `rows` (B, places, H, D).
  explicit SummedRows(const at::Tensor& rows);

  /// `view`: which rows of the tile the gradient (batch, heads, rows, D) is for.
  void add(const Tile& tile, const RowView& view, std::int64_t call, const at::Tensor& gradient);

  /// (B, places, H, D), summed in float32 or wider and rounded to `dtype` once; 0 for a row that no call served. Ends
  /// this object's use.
  at::Tensor finish(at::ScalarType dtype);

 private:
  std::vector<std::int64_t> sizes_;
  at::TensorOptions options_;
  at::Tensor sum_;  ///< on the CPU
  std::vector<Part> parts_;
};

}  // namespace longnet
