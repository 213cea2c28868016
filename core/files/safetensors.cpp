#include "core/files/safetensors.h"

#include <ATen/ATen.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace longnet {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::pair<const char*, at::ScalarType>, 10> dtypes{{{"F64", at::kDouble},
                                                                         {"F32", at::kFloat},
                                                                         {"F16", at::kHalf},
                                                                         {"BF16", at::kBFloat16},
                                                                         {"I64", at::kLong},
                                                                         {"I32", at::kInt},
                                                                         {"I16", at::kShort},
                                                                         {"I8", at::kChar},
                                                                         {"U8", at::kByte},
                                                                         {"BOOL", at::kBool}}};

}  // namespace

std::string safetensors_dtype(at::ScalarType type) {
  for (const auto& [name, candidate] : dtypes) {
    if (candidate == type) return name;
  }
  throw DataError(std::string("safetensors has no dtype for ") + c10::toString(type));
}

at::ScalarType scalar_type(const std::string& safetensors_dtype) {
  for (const auto& [name, candidate] : dtypes) {
    if (name == safetensors_dtype) return candidate;
  }
  throw DataError("unknown safetensors dtype " + safetensors_dtype);
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  try {
    read_header();
  } catch (const Json::exception& error) {
    fail(error.what());
  }
}

void SafetensorsFile::fail(const std::string& what) const {
  throw DataError(path_.string() + ": not a usable safetensors file: " + what);
}

void SafetensorsFile::read_header() {
  const auto bytes = file_.bytes();
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) fail("it is shorter than its header");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > bytes.size() - sizeof length) fail("it is shorter than its header");
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + sizeof length;
  const std::uint64_t data_begin = sizeof length + length;
  const Json header = Json::parse(text, text + length);
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = value.get<std::map<std::string, std::string>>();
      continue;
    }
    const auto offsets = value.at("data_offsets").get<std::array<std::uint64_t, 2>>();
    Entry entry{scalar_type(value.at("dtype").get<std::string>()), value.at("shape").get<std::vector<std::int64_t>>(),
                data_begin + offsets[0], data_begin + offsets[1]};
    std::uint64_t size = c10::elementSize(entry.type);
    for (const std::int64_t extent : entry.shape) size *= static_cast<std::uint64_t>(extent);
    if (entry.end > bytes.size() || entry.begin > entry.end || entry.end - entry.begin != size) {
      fail("the tensor " + name + " does not fit into it");
    }
    entries_.emplace(name, std::move(entry));
  }
}

const SafetensorsFile::Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("it has no tensor " + name);
  return found->second;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

at::Tensor SafetensorsFile::copy(const Entry& entry, const std::vector<std::int64_t>& shape,
                                 std::uint64_t begin) const {
  auto tensor = at::empty(shape, entry.type);
  if (tensor.numel() > 0) std::memcpy(tensor.data_ptr(), file_.bytes().data() + begin, tensor.nbytes());
  return tensor;
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  const Entry& found = entry(name);
  return copy(found, found.shape, found.begin);
}

at::Tensor SafetensorsFile::read_rows(const std::string& name, std::int64_t begin, std::int64_t end) const {
  const Entry& found = entry(name);
  if (found.shape.empty() || begin < 0 || end < begin || end > found.shape[0]) {
    fail("the tensor " + name + " has no rows " + std::to_string(begin) + " to " + std::to_string(end));
  }
  auto shape = found.shape;
  shape[0] = end - begin;
  const std::uint64_t row_bytes =
      found.shape[0] == 0 ? 0 : (found.end - found.begin) / static_cast<std::uint64_t>(found.shape[0]);
  return copy(found, shape, found.begin + static_cast<std::uint64_t>(begin) * row_bytes);
}

FileDigest write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", safetensors_dtype(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, offset + tensor.nbytes()}}};
    offset += tensor.nbytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the format wants aligned tensors

  HashingFile file(path);
  const std::uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const auto& [name, tensor] : tensors) {
    const auto dense = tensor.contiguous();
    file.write({static_cast<const std::byte*>(dense.const_data_ptr()), dense.nbytes()});
  }
  return file.commit();
}

}  // namespace longnet
