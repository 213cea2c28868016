#include "core/files/weights_file.h"

#include <ATen/ATen.h>

#include <array>
#include <cstring>

#include "core/error.h"
#include "core/files/input_file.h"
#include "core/files/pickle.h"
#include "core/files/safetensors.h"
#include "core/files/zip_archive.h"

namespace longnet {
namespace {

bool begins_with(const std::filesystem::path& path, std::string_view letters) {
  return InputFile(path).beginning(letters.size()) == letters;
}

Weights read_safetensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  Weights weights;
  for (const std::string& name : file.names()) {
    if (file.readable(name)) {
      weights.tensors.emplace(name, file.read(name));
    } else {
      weights.unreadable.emplace(name, "of the dtype " + file.dtype_name(name));
    }
  }
  return weights;
}

const PickleDict* dictionary(const PickleValue& value) {
  const auto* found = value.get<std::shared_ptr<PickleDict>>();
  return found == nullptr ? nullptr : found->get();
}

/// The dictionary with the tensors: the value itself, or what it holds under a customary key.
const PickleDict& state_dict(const PickleValue& value) {
  const PickleDict* outer = dictionary(value);
  if (outer == nullptr) throw DataError("it holds no dictionary");
  for (const auto& [key, inner] : *outer) {
    const std::string* name = key.get<std::string>();
    const bool customary = name != nullptr && (*name == "model" || *name == "state_dict" || *name == "module");
    if (customary && dictionary(inner) != nullptr) return *dictionary(inner);
  }
  return *outer;
}

/// What comes before `data.pkl` in the names of all entries.
std::string common_folder(const ZipArchive& archive) {
  constexpr std::string_view last = "data.pkl";
  for (const std::string& name : archive.names()) {
    if (name.ends_with(last) && name.find('/') == name.rfind('/')) return name.substr(0, name.size() - last.size());
  }
  throw DataError("it holds no data.pkl: not a file of torch.save");
}

Weights read_zip(const std::filesystem::path& path) {
  const ZipArchive archive(path);
  const std::string folder = common_folder(archive);
  if (archive.contains(folder + "byteorder")) {
    const auto order = archive.read(folder + "byteorder");
    if (std::string_view(reinterpret_cast<const char*>(order.data()), order.size()) != "little") {
      throw DataError("its numbers are not in little-endian order");
    }
  }
  std::map<std::string, at::Tensor> loaded;  // tensors may share a storage
  const auto load = [&](at::ScalarType dtype, const std::string& key, std::int64_t elements) {
    if (const auto found = loaded.find(key); found != loaded.end() && found->second.scalar_type() == dtype) {
      return found->second;
    }
    const auto data = archive.read(folder + "data/" + key);
    if (elements < 0 || static_cast<std::size_t>(elements) > data.size() / c10::elementSize(dtype)) {
      throw DataError("the storage " + key + " is shorter than it says");
    }
    auto storage = at::empty({elements}, dtype);
    if (elements > 0) std::memcpy(storage.data_ptr(), data.data(), storage.nbytes());
    return loaded[key] = storage;
  };
  const Pickle pickle = read_pickle(archive.read(folder + "data.pkl"), load);
  Weights weights;
  for (const auto& [key, inner] : state_dict(pickle.value)) {
    const std::string* name = key.get<std::string>();
    if (name == nullptr) continue;
    if (const at::Tensor* tensor = inner.get<at::Tensor>()) weights.tensors.emplace(*name, *tensor);
    if (const auto* other = inner.get<PickleUnread>()) weights.unreadable.emplace(*name, "of " + other->type);
  }
  if (weights.tensors.empty()) throw DataError("it holds no tensors by name");
  return weights;
}

/// Whether it may be a safetensors file, whatever its name is: eight bytes of length, then a JSON object.
bool has_json_header(const std::filesystem::path& path) {
  constexpr std::size_t length_bytes = 8;
  const std::string beginning = InputFile(path).beginning(length_bytes + 1);
  return beginning.size() > length_bytes && beginning[length_bytes] == '{';
}

}  // namespace

Weights read_weights(const std::filesystem::path& path) {
  if (begins_with(path, "PK\x03\x04")) {
    try {
      return read_zip(path);
    } catch (const DataError& error) {
      throw DataError(path.string() + ": " + error.what());
    }
  }
  if (path.extension() == ".safetensors" || has_json_header(path)) return read_safetensors(path);
  if (begins_with(path, "\x80")) {
    throw DataError(path.string() +
                    ": in the format of torch.save before version 1.6, which is not read; load it with "
                    "torch.load and save it again");
  }
  throw DataError(path.string() + ": neither a safetensors file nor one of torch.save");
}

}  // namespace longnet
