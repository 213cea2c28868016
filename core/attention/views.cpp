#include "core/attention/views.h"

#include <vector>

namespace longnet {

std::int64_t call_count(std::int64_t batch, const Tile& tile) {
  return tile.segments == 1 ? 1 : batch;
}

at::Tensor tile_view(const at::Tensor& tensor, const Tile& tile, const RowView& rows, std::int64_t call) {
  const std::int64_t batch_stride = tensor.stride(0), place_stride = tensor.stride(1), head_stride = tensor.stride(2);
  std::int64_t offset = tensor.storage_offset() + rows.first * place_stride + tile.heads.first * head_stride;
  std::vector<std::int64_t> sizes{tensor.size(0), tile.heads.count, rows.count};
  std::vector<std::int64_t> strides{batch_stride, tile.heads.step * head_stride + rows.head_step * place_stride,
                                    rows.row_step * place_stride};
  if (tile.segments > 1) {
    sizes[0] = tile.segments;
    strides[0] = rows.segment_step * place_stride;
    offset += call * batch_stride;
  }
  for (std::int64_t dimension = 3; dimension < tensor.dim(); ++dimension) {
    sizes.push_back(tensor.size(dimension));
    strides.push_back(tensor.stride(dimension));
  }
  return tensor.as_strided(sizes, strides, offset);
}

PartRows part_rows(const Tile& tile, const RowView& rows, std::int64_t call) {
  return {rows.first,    rows.count,       rows.row_step,    rows.head_step,  rows.segment_step,
          tile.segments, tile.heads.first, tile.heads.count, tile.heads.step, tile.segments > 1 ? call : -1};
}

}  // namespace longnet
