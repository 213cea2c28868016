#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace longnet {

/// Writes values (rows, columns), floating point, as a grey PNG: 0 is black, the largest of each row white, with square
/// roots in between, so that small ones show; a row is 8 pixels high. Columns are joined, by their largest, where there
/// are more than `largest_width`. Throws FileError when the file cannot be written.
void write_grey_image(const std::filesystem::path& path, const at::Tensor& values, std::int64_t largest_width = 2048);

}  // namespace longnet
