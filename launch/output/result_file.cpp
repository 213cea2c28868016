#include "launch/output/result_file.h"

#include "core/error.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* mark_key = "longnet";
constexpr const char* mark = "result";

bool is_result(const fs::path& path) {
  try {
    const auto metadata = SafetensorsFile(path).metadata();
    const auto found = metadata.find(mark_key);
    return found != metadata.end() && found->second == mark;
  } catch (const DataError&) {
    return false;
  }
}

}  // namespace

void write_result(const fs::path& path, const std::vector<NamedTensor>& tensors) {
  write_safetensors(path, tensors, {{mark_key, mark}});
}

void require_replaceable(const fs::path& path, const std::string& option) {
  std::error_code error;
  if (fs::symlink_status(path, error).type() == fs::file_type::not_found || is_result(path)) return;
  throw ConfigError(option + ": " + path.string() +
                    " is there, and is no result that longnet wrote; remove it, or choose another folder");
}

}  // namespace longnet
