#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace longnet {

/// A file of scalars for TensorBoard: records of length, masked crc32c of the length, data, masked crc32c of the data;
/// the data are protobuf messages.
class EventFile {
 public:
  /// Creates a new file events.out.tfevents.* in `folder`. Throws Error.
  explicit EventFile(const std::filesystem::path& folder);

  /// One value of each tag at `step`. What is written can be read at once.
  void write(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write_record(const std::string& data);

  std::filesystem::path path_;
  std::ofstream out_;
};

/// CRC-32C (Castagnoli) of `data`, as iSCSI defines it (RFC 3720, appendix B.4).
std::uint32_t crc32c(const std::string& data);

}  // namespace longnet
