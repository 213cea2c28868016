#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace longnet {

/// The tensors of a file that others wrote, by name.
struct Weights {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> unreadable;  ///< those of a kind that is not read, and which
};

/// Reads a safetensors file, or what torch.save made of a state_dict in its zip format (version 1.6 and later). A
/// dictionary that holds another one under the key `model`, `state_dict` or `module` is taken for that one. Nothing in
/// the file is run. Throws DataError, with the reason, for any other file.
Weights read_weights(const std::filesystem::path& path);

}  // namespace longnet
