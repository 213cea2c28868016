#include "core/files/event_records.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>

#include "core/files/tensorboard.pb.h"
#include "core/host_name.h"

namespace longnet {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = value;
  }
  return table;
}();

/// TensorBoard stores checksums rotated and shifted, so that a checksum of data that hold checksums stays useful.
std::uint32_t masked(std::uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

template <typename Integer>
std::string bytes_of(Integer value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string record(const tensorboard::Event& event) {
  const std::string data = event.SerializeAsString(), length = bytes_of<std::uint64_t>(data.size());
  return length + bytes_of(masked(crc32c(length))) + data + bytes_of(masked(crc32c(data)));
}

}  // namespace

std::uint32_t crc32c(const std::string& data) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char byte : data) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(byte)) & 0xFFU];
  return crc ^ 0xFFFFFFFFU;
}

std::string event_file_name() {
  return "events.out.tfevents." + std::to_string(static_cast<std::int64_t>(now())) + "." + host_name() + "." +
         std::to_string(::getpid());
}

std::string first_event_record() {
  tensorboard::Event event;
  event.set_wall_time(now());
  event.set_file_version("brain.Event:2");
  return record(event);
}

std::string scalars_record(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  tensorboard::Event event;
  event.set_wall_time(now());
  event.set_step(step);
  for (const auto& [tag, value] : scalars) {
    auto* entry = event.mutable_summary()->add_value();
    entry->set_tag(tag);
    entry->set_simple_value(static_cast<float>(value));
  }
  return record(event);
}

}  // namespace longnet
