#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

/// Scalars for TensorBoard as records of a file: length, masked crc32c of the length, data, masked crc32c of the data; the
/// data are protobuf messages.
namespace longnet {

/// A name for a new file: events.out.tfevents.TIME.HOST.PROCESS
std::string event_file_name();

/// The record that a file begins with.
std::string first_event_record();

/// One value of each tag at `step`.
std::string scalars_record(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

/// CRC-32C (Castagnoli) of `data`, as iSCSI defines it (RFC 3720, appendix B.4).
std::uint32_t crc32c(const std::string& data);

}  // namespace longnet
