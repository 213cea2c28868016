#pragma once

#include <zip.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace longnet {

/// A zip file opened for reading, as torch.save writes them: entries are stored, not compressed. Each entry's checksum is
/// compared when it is read, which LibTorch's own reader leaves out.
class ZipArchive {
 public:
  /// Throws DataError for what is no such file.
  explicit ZipArchive(const std::filesystem::path& path);

  /// The names of all entries.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return zip_name_locate(archive_.get(), name.c_str(), 0) >= 0; }

  /// The content of an entry. Throws DataError for one that is not there, is compressed, or fails its checksum.
  std::vector<std::byte> read(const std::string& name) const;

 private:
  std::unique_ptr<zip_t, decltype(&zip_discard)> archive_;
  std::uint64_t size_;  ///< of the file
};

}  // namespace longnet
