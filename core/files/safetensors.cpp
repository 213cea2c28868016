#include "core/files/safetensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/files/strict_json.h"

namespace longnet {
namespace {

constexpr std::array<std::pair<const char*, at::ScalarType>, 15> dtypes{{{"F64", at::kDouble},
                                                                         {"F32", at::kFloat},
                                                                         {"F16", at::kHalf},
                                                                         {"BF16", at::kBFloat16},
                                                                         {"F8_E5M2", at::kFloat8_e5m2},
                                                                         {"F8_E4M3", at::kFloat8_e4m3fn},
                                                                         {"I64", at::kLong},
                                                                         {"I32", at::kInt},
                                                                         {"I16", at::kShort},
                                                                         {"I8", at::kChar},
                                                                         {"U64", at::kUInt64},
                                                                         {"U32", at::kUInt32},
                                                                         {"U16", at::kUInt16},
                                                                         {"U8", at::kByte},
                                                                         {"BOOL", at::kBool}}};

std::optional<at::ScalarType> find_type(const std::string& dtype) {
  for (const auto& [name, candidate] : dtypes) {
    if (name == dtype) return candidate;
  }
  return {};
}

template <typename Number>
std::vector<Number> whole_numbers(const nlohmann::json& list) {
  if (!list.is_array()) throw DataError(list.dump() + " is no list of sizes");
  std::vector<Number> numbers;
  for (const auto& number : list) {
    const bool fits = number.is_number_unsigned() &&
                      number.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
    if (!fits) throw DataError(number.dump() + " is no size");
    numbers.push_back(number.get<Number>());
  }
  return numbers;
}

/// Bytes of a tensor; nothing where 64 bits do not hold them.
std::optional<std::uint64_t> byte_count(const std::vector<std::int64_t>& shape, std::uint64_t element_bytes) {
  std::uint64_t bytes = element_bytes;
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes)) return {};
  }
  return bytes;
}

}  // namespace

std::string safetensors_dtype(at::ScalarType type) {
  for (const auto& [name, candidate] : dtypes) {
    if (candidate == type) return name;
  }
  throw DataError(std::string("safetensors has no dtype for ") + c10::toString(type));
}

at::ScalarType scalar_type(const std::string& safetensors_dtype) {
  if (const auto type = find_type(safetensors_dtype)) return *type;
  throw DataError("the safetensors dtype " + safetensors_dtype + " is not one that can be read");
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const InputFile file(path);
  version_ = file.version();
  try {
    read_header(file);
  } catch (const nlohmann::json::exception& error) {
    fail(error.what());
  } catch (const DataError& error) {
    fail(error.what());
  }
}

void SafetensorsFile::fail(const std::string& what) const {
  throw DataError(path_.string() + ": not a usable safetensors file: " + what);
}

void SafetensorsFile::read_header(const InputFile& file) {
  constexpr std::uint64_t longest_header = 100'000'000;  // the format's own limit
  std::uint64_t length = 0;
  if (version_.size < sizeof length) throw DataError("it is shorter than its header");
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > version_.size - sizeof length) throw DataError("it is shorter than its header");
  if (length > longest_header) throw DataError("its header is longer than the format allows");
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(sizeof length, std::as_writable_bytes(std::span(text)));
  const auto header = parse_json(text);
  if (!header.is_object()) throw DataError("its header holds no names");
  const std::uint64_t data_begin = sizeof length + length;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = value.get<std::map<std::string, std::string>>();
      continue;
    }
    const auto offsets = whole_numbers<std::uint64_t>(value.at("data_offsets"));
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > version_.size - data_begin) {
      throw DataError("the tensor " + name + " does not fit into it");
    }
    add(name, {name, value.at("dtype").get<std::string>(), whole_numbers<std::int64_t>(value.at("shape")),
               data_begin + offsets[0], data_begin + offsets[1]});
  }
  require_tiles(data_begin);
}

void SafetensorsFile::add(const std::string& name, Entry entry) {
  if (const auto type = find_type(entry.dtype)) {
    const auto bytes = byte_count(entry.shape, c10::elementSize(*type));
    if (!bytes || *bytes != entry.end - entry.begin) throw DataError("the tensor " + name + " does not fit into it");
  }
  entries_.emplace(name, std::move(entry));
}

std::vector<const SafetensorsFile::Entry*> SafetensorsFile::in_order() const {
  std::vector<const Entry*> in_order;
  in_order.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(),
            [](const Entry* a, const Entry* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  return in_order;
}

void SafetensorsFile::require_tiles(std::uint64_t data_begin) const {
  std::uint64_t end = data_begin;
  for (const Entry* entry : in_order()) {
    if (entry->begin != end) throw DataError("its tensors overlap or leave gaps");
    end = entry->end;
  }
  if (end != version_.size)
    throw DataError("it has " + std::to_string(version_.size - end) + " bytes behind its last tensor");
}

const SafetensorsFile::Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("it has no tensor " + name);
  return found->second;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

bool SafetensorsFile::readable(const std::string& name) const {
  return find_type(entry(name).dtype).has_value();
}

at::ScalarType SafetensorsFile::dtype(const std::string& name) const {
  const auto type = find_type(entry(name).dtype);
  if (!type) fail("the tensor " + name + " is " + entry(name).dtype + ", which cannot be read");
  return *type;
}

at::Tensor SafetensorsFile::read(const std::string& name, const std::vector<std::int64_t>& shape,
                                 std::uint64_t begin) const {
  auto tensor = at::empty(shape, dtype(name));
  const InputFile file(path_, version_);
  file.read(begin, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
  return tensor;
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  return read(name, entry(name).shape, entry(name).begin);
}

FileDigest SafetensorsFile::read_through(const std::function<at::Tensor(const std::string& name)>& place,
                                         const std::function<void(const std::string& name)>& done) const {
  const InputFile file(path_, version_);
  HashingReader reader(file);
  for (const Entry* entry : in_order()) {
    reader.skip_to(entry->begin);
    const at::Tensor destination = place(entry->name);
    if (!destination.defined()) continue;
    if (destination.scalar_type() != dtype(entry->name) || destination.nbytes() != entry->end - entry->begin ||
        !destination.is_cpu() || !destination.is_contiguous()) {
      fail("the tensor " + entry->name + " is not what it is read as");
    }
    reader.read({static_cast<std::byte*>(destination.data_ptr()), destination.nbytes()});
    done(entry->name);
  }
  return reader.finish();
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
  return read(name, shape, found.begin + static_cast<std::uint64_t>(begin) * row_bytes);
}

FileDigest write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
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
