#pragma once

#include <filesystem>
#include <string>

namespace longnet {

/// Makes the folder, unless it is there, and says why no file can be made in it, if that is so.
std::error_code make_writable_folder(const std::filesystem::path& folder);

/// The same for the folder of results that the option `option` names: throws FileError, and ConfigError for a checkpoint's
/// folder. To be called before there is work that would be lost.
void require_writable_folder(const std::filesystem::path& folder, const std::string& option);

}  // namespace longnet
