#include "launch/output/writable_folder.h"

#include <unistd.h>

#include <cerrno>

#include "core/error.h"

namespace longnet {

std::error_code make_writable_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || ::access(folder.c_str(), W_OK) == 0) return error;
  return {errno, std::generic_category()};
}

void require_writable_folder(const std::filesystem::path& folder, const std::string& option) {
  if (std::filesystem::exists(folder / "manifest.json")) {
    throw ConfigError(option + ": " + folder.string() + " is a checkpoint; choose another folder");
  }
  if (const auto error = make_writable_folder(folder)) {
    throw FileError(option + ": " + folder.string() + " cannot be written: " + error.message());
  }
}

}  // namespace longnet
