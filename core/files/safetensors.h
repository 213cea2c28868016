#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/files/hashing_file.h"
#include "core/files/mapped_file.h"

/// The safetensors format: 8 bytes of header length, a JSON header, the raw little-endian tensors.
namespace longnet {

/// The format's name of a dtype ("F32", "BF16", "I64", ...), and back. Throws DataError for one that it has no name
/// for.
std::string safetensors_dtype(at::ScalarType type);
at::ScalarType scalar_type(const std::string& safetensors_dtype);

/// A safetensors file opened for reading. Throws DataError for a file that breaks the format or ends early.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }

  /// In the order of their names.
  std::vector<std::string> names() const;
  const std::vector<std::int64_t>& shape(const std::string& name) const { return entry(name).shape; }
  at::ScalarType dtype(const std::string& name) const { return entry(name).type; }

  /// A copy of the tensor.
  at::Tensor read(const std::string& name) const;

  /// A copy of tensor[begin:end], 0 <= begin <= end <= shape[0].
  at::Tensor read_rows(const std::string& name, std::int64_t begin, std::int64_t end) const;

  /// The whole file, for a digest.
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  struct Entry {
    at::ScalarType type;
    std::vector<std::int64_t> shape;
    std::uint64_t begin;  ///< in the file
    std::uint64_t end;
  };

  void read_header();
  const Entry& entry(const std::string& name) const;
  at::Tensor copy(const Entry& entry, const std::vector<std::int64_t>& shape, std::uint64_t begin) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

using NamedTensor = std::pair<std::string, at::Tensor>;

/// Writes CPU tensors in the given order and puts the file on the disk.
FileDigest write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace longnet
