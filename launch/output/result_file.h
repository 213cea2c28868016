#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/files/safetensors.h"

namespace longnet {

/// Writes tensors that a command gives as its result, with a mark that says so. Throws FileError.
void write_result(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors);

/// Throws ConfigError when something is at `path` that no such command has written: data or weights, perhaps. `option`: which names
/// the folder.
void require_replaceable(const std::filesystem::path& path, const std::string& option);

}  // namespace longnet
