#include "core/data/paths.h"

#include <glob.h>

#include <algorithm>
#include <map>

#include "core/error.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

/// Without those that are hidden, or in hidden folders, as a glob would have it: they belong to tools.
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  try {
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::end(entry); ++entry) {
      if (entry->path().filename().string().starts_with('.')) {
        entry.disable_recursion_pending();
      } else if (entry->is_regular_file() && entry->file_size() > 0) {
        files.push_back(entry->path());
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw DataError(folder.string() + ": a folder in it cannot be read: " + error.what());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> files_matching(const std::string& pattern) {
  glob_t matches = {};
  std::vector<fs::path> files;
  if (::glob(pattern.c_str(), 0, nullptr, &matches) == 0) {
    for (std::size_t i = 0; i < matches.gl_pathc; ++i) {
      const fs::path path = matches.gl_pathv[i];
      if (fs::is_regular_file(path) && fs::file_size(path) > 0) files.push_back(path);
    }
  }
  ::globfree(&matches);
  return files;
}

std::vector<fs::path> expand(const std::string& pattern) {
  if (fs::is_directory(pattern)) return files_below(pattern);
  if (!fs::exists(pattern)) return files_matching(pattern);
  if (fs::is_regular_file(pattern) && fs::file_size(pattern) == 0) throw DataError(pattern + ": the file is empty");
  return {pattern};
}

}  // namespace

std::vector<fs::path> expand_paths(const std::vector<std::string>& patterns) {
  std::vector<fs::path> files;
  for (const std::string& pattern : patterns) {
    const auto matches = expand(pattern);
    if (matches.empty())
      throw DataError(pattern + ": no such file, no folder with files, and no glob that matches one");
    files.insert(files.end(), matches.begin(), matches.end());
  }
  return files;
}

std::vector<std::string> names_of(const std::vector<fs::path>& files, const std::string& extension) {
  std::vector<fs::path> whole;
  fs::path common;
  for (const fs::path& file : files) {
    whole.push_back(fs::absolute(file).lexically_normal());
    fs::path folder = whole.back().parent_path();
    if (common.empty()) common = folder;
    // The part of both paths up to the first difference.
    const auto border = std::mismatch(common.begin(), common.end(), folder.begin(), folder.end()).first;
    fs::path shorter;
    for (auto part = common.begin(); part != border; ++part) shorter /= *part;
    common = shorter;
  }
  std::vector<std::string> names;
  std::map<std::string, fs::path> owners;
  for (const fs::path& file : whole) {
    fs::path name = file.lexically_relative(common);
    if (name.extension() == extension) name.replace_extension();
    const auto [owner, is_new] = owners.emplace(name.string(), file);
    if (!is_new && owner->second != file) {
      throw DataError(owner->second.string() + " and " + file.string() +
                      " differ in their extension alone; rename one");
    }
    names.push_back(name.string());
  }
  return names;
}

}  // namespace longnet
