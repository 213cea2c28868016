#include "core/files/grey_image.h"

#include <ATen/ATen.h>
#include <png.h>

#include "core/error.h"

namespace longnet {
namespace {

/// The largest of each `count` columns.
at::Tensor joined(const at::Tensor& values, std::int64_t count) {
  const std::int64_t missing = (count - values.size(1) % count) % count;
  return at::constant_pad_nd(values, {0, missing}).unflatten(1, {-1, count}).amax(-1);
}

}  // namespace

void write_grey_image(const std::filesystem::path& path, const at::Tensor& values, std::int64_t largest_width) {
  const auto columns = joined(values.to(at::kDouble), (values.size(1) + largest_width - 1) / largest_width);
  const auto largest = columns.amax(1, /*keepdim=*/true);
  constexpr std::int64_t row_height = 8;
  const auto grey = (columns / largest.masked_fill(largest.eq(0), 1))
                        .sqrt()
                        .mul(255)
                        .round()
                        .to(at::kByte)
                        .repeat_interleave(row_height, 0);

  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(grey.size(1));
  image.height = static_cast<png_uint_32>(grey.size(0));
  image.format = PNG_FORMAT_GRAY;
  if (png_image_write_to_file(&image, path.c_str(), 0, grey.data_ptr(), 0, nullptr) == 0) {
    throw FileError(path.string() + ": cannot be written: " + image.message);
  }
}

}  // namespace longnet
