#pragma once

#include <ATen/core/Tensor.h>

/// Vectors that are added to a model's input to tell where it lies.
namespace longnet {

/// Sines and cosines of `places` (...), float64: (..., width), width / 2 sines and then as many cosines of
/// place * 10000^(-k / (width / 2)). The width must be even.
at::Tensor sinusoidal_encoding(const at::Tensor& places, std::int64_t width);

/// Two of them for the cell of a grid that each point of `coordinates` (..., 2) lies in, as GigaPath's slide encoder
/// has it: with (i, j) = floor(coordinates / cell), the first half of the channels encodes j, the second i.
/// (..., width), float64; the width must be a multiple of 4.
at::Tensor grid_encoding(const at::Tensor& coordinates, double cell, std::int64_t width);

}  // namespace longnet
