#include "core/attention/row_cache.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <algorithm>
#include <limits>

#include "core/attention/kernel.h"
#include "core/attention/merge.h"
#include "core/to_device.h"

namespace longnet {

RowCache::RowCache(const Mixture& mixture, std::int64_t heads) : heads_(heads) {
  for (const Branch& branch : mixture.branches) branches_.push_back({{branch, heads, mixture.head_offsets}, {}, {}});
}

void RowCache::reserve(BranchRows& rows, std::int64_t count, const at::Tensor& like) {
  const std::int64_t capacity = rows.keys.defined() ? rows.keys.size(1) : 0;
  if (count <= capacity) return;
  const Branch& branch = rows.heads.branch;
  const std::int64_t most = (branch.segment + branch.rate - 1) / branch.rate;
  const std::int64_t larger = std::min(most, std::max({count, 2 * capacity, std::int64_t{16}}));
  for (at::Tensor* tensor : {&rows.keys, &rows.values}) {
    auto grown = at::zeros({rows.heads.heads, larger, like.size(3)}, like.options());
    if (capacity > 0) grown.slice(1, 0, capacity).copy_(*tensor);
    *tensor = grown;
  }
}

void RowCache::fill(const at::Tensor& k, const at::Tensor& v) {
  position_ = k.size(1);
  for (BranchRows& rows : branches_) {
    const std::int64_t begin = segment_begin(rows.heads.branch, position_);
    const auto spans = rows_in(rows.heads, begin, {begin, position_});
    for (std::int64_t head = 0; head < heads_; ++head) {
      const std::int64_t count = spans[static_cast<std::size_t>(head)].count;
      if (count == 0) continue;
      reserve(rows, count, k);
      const auto taken = [&](const at::Tensor& tensor) {
        return tensor[0].select(1, head).slice(0, begin + rows.heads.offset(head), position_, rows.heads.branch.rate);
      };
      rows.keys[head].slice(0, 0, count).copy_(taken(k));
      rows.values[head].slice(0, 0, count).copy_(taken(v));
    }
  }
}

at::Tensor RowCache::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto options = q.options().dtype(at::toOpMathType(q.scalar_type()));
  auto out = at::zeros({1, heads_, 1, q.size(3)}, options);
  auto lse = at::full({1, heads_, 1}, -std::numeric_limits<double>::infinity(), options);
  const std::int64_t position = position_++;

  for (BranchRows& rows : branches_) {
    const std::int64_t begin = segment_begin(rows.heads.branch, position);
    const auto spans = rows_in(rows.heads, begin, {position, position + 1});
    // The heads to whose rows this position belongs: they share an offset, and so a row number.
    std::vector<std::int64_t> members;
    for (std::int64_t head = 0; head < heads_; ++head) {
      if (spans[static_cast<std::size_t>(head)].count == 1) members.push_back(head);
    }
    if (members.empty()) continue;
    const std::int64_t row = spans[static_cast<std::size_t>(members[0])].first;
    reserve(rows, row + 1, k);
    const auto index = to_device(at::tensor(members), q.device());
    const auto of_members = [&](const at::Tensor& tensor) { return tensor[0][0].index_select(0, index).unsqueeze(1); };
    rows.keys.slice(1, row, row + 1).index_copy_(0, index, of_members(k));
    rows.values.slice(1, row, row + 1).index_copy_(0, index, of_members(v));
    const auto seen = [&](const at::Tensor& tensor) {
      return tensor.slice(1, 0, row + 1).index_select(0, index).unsqueeze(0);
    };
    const auto part = kernel_forward(of_members(q).unsqueeze(0), seen(rows.keys), seen(rows.values), false, {});

    auto out_members = out.index_select(1, index), lse_members = lse.index_select(1, index);
    merge_attention(out_members, lse_members, part.out, part.lse);
    out.index_copy_(1, index, out_members);
    lse.index_copy_(1, index, lse_members);
  }
  return out.transpose(1, 2).to(q.scalar_type());
}

std::int64_t RowCache::row_count() const {
  std::int64_t count = 0;
  for (const BranchRows& rows : branches_) {
    const std::int64_t begin = segment_begin(rows.heads.branch, position_);
    for (const Span& span : rows_in(rows.heads, begin, {begin, position_})) count += span.count;
  }
  return count;
}

}  // namespace longnet
