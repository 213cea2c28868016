#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/attention/part.h"
#include "core/attention/rows.h"

namespace longnet {

/// How many kernel calls a tile needs for a batch: one, unless both the batch and the tile's segments are many.
std::int64_t call_count(std::int64_t batch, const Tile& tile);

/// The rows of `tensor` (B, places, H, ...) that the call `call` of `tile` serves: a view (batch, heads, rows, ...)
/// without a copy. `rows` is one of the tile's views. The view's batch is B when the tile has one segment, and the
/// tile's segments otherwise.
at::Tensor tile_view(const at::Tensor& tensor, const Tile& tile, const RowView& rows, std::int64_t call);

/// The same rows for a GPU to look up.
PartRows part_rows(const Tile& tile, const RowView& rows, std::int64_t call);

}  // namespace longnet
