#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace longnet {

/// The files that `patterns` name: a file is itself, a folder all regular files below it, anything else a glob (`*`,
/// `?`, `[...]`); each pattern's files sorted by name, empty files in folders and globs left out. Throws DataError for a
/// pattern that names nothing and for an empty file.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& patterns);

/// A name for each of these files: its path below the folder that all have in common, without `extension`. Throws
/// DataError where two files would get the same.
std::vector<std::string> names_of(const std::vector<std::filesystem::path>& files, const std::string& extension);

}  // namespace longnet
