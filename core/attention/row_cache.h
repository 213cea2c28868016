#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/attention/mixture.h"
#include "core/attention/rows.h"

namespace longnet {

/// Causal dilated attention one position at a time: for each branch the keys and values of the current segment, and of
/// each head only its own rows. Nothing older is needed, and nothing else is kept: about segment / rate rows a branch
/// and head, whatever the length of the sequence.
class RowCache {
 public:
  RowCache(const Mixture& mixture, std::int64_t heads);

  /// Takes in the keys and values of the first positions, (1, n, H, D). Only at the beginning.
  void fill(const at::Tensor& k, const at::Tensor& v);

  /// Takes in the next position's k and v and returns its attention; all are (1, 1, H, D).
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

  std::int64_t position() const { return position_; }
  /// Rows held now, over all branches and heads.
  std::int64_t row_count() const;

 private:
  struct BranchRows {
    BranchHeads heads;
    at::Tensor keys;    ///< (H, capacity, D)
    at::Tensor values;  ///< (H, capacity, D)
  };

  static void reserve(BranchRows& rows, std::int64_t count, const at::Tensor& like);

  std::vector<BranchRows> branches_;
  std::int64_t heads_;
  std::int64_t position_ = 0;
};

}  // namespace longnet
