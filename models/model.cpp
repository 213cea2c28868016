#include "models/model.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/to_device.h"

namespace longnet {
namespace {

/// (B, positions) bool: which of these positions lie in each sequence.
std::optional<at::Tensor> mask_of(const Batch& batch, Range positions, c10::Device device) {
  const auto whole = [&](std::int64_t length) { return length == batch.shard.length; };
  if (std::all_of(batch.lengths.begin(), batch.lengths.end(), whole)) return {};
  const auto lengths = to_device(at::tensor(batch.lengths, at::kLong), device).unsqueeze(1);
  return at::arange(positions.begin, positions.end, lengths.options()).unsqueeze(0).lt(lengths);
}

}  // namespace

const at::Tensor& Batch::at(const std::string& field) const {
  const auto found = fields.find(field);
  if (found == fields.end() || found->second.values.size(0) != size()) {
    throw DataError("a sequence lacks the field " + field);
  }
  return found->second.values;
}

std::optional<at::Tensor> Batch::own_mask(std::int64_t rows, c10::Device device) const {
  return mask_of(*this, {shard.own.end - rows, shard.own.end}, device);
}

std::optional<at::Tensor> Batch::key_mask(c10::Device device) const {
  return mask_of(*this, {0, shard.length}, device);
}

Batch on_device(const Batch& batch, c10::Device device) {
  Batch moved = batch;
  for (auto& [name, field] : moved.fields) field.values = to_device(field.values, device);
  return moved;
}

}  // namespace longnet
