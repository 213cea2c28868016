#pragma once

#include <filesystem>
#include <string>

namespace longnet {

/// The first of name.ext, name-2.ext, name-3.ext, ... that is free; `extension` has its dot.
inline std::filesystem::path free_name(const std::filesystem::path& name, const std::string& extension = "") {
  std::filesystem::path free = name.string() + extension;
  for (int copy = 2; std::filesystem::exists(free); ++copy) {
    free = name.string() + "-" + std::to_string(copy) + extension;
  }
  return free;
}

}  // namespace longnet
