#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/files/hashing_file.h"
#include "core/files/input_file.h"

/// The safetensors format: 8 bytes of header length, a JSON header, the raw little-endian tensors.
namespace longnet {

/// The format's name of a dtype ("F32", "BF16", "I64", ...), and back. Throws DataError for one that it has no name
/// for, or that LibTorch has not.
std::string safetensors_dtype(at::ScalarType type);
at::ScalarType scalar_type(const std::string& safetensors_dtype);

/// A safetensors file whose header has been read and found sound: the tensors tile the data. It holds no memory but the
/// header and no open file: tensors are read from the disk when they are asked for. Throws DataError for a file that
/// breaks the format, ends early, or was written since.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }

  /// In the order of their names.
  std::vector<std::string> names() const;
  const std::vector<std::int64_t>& shape(const std::string& name) const { return entry(name).shape; }
  /// False for a tensor of a dtype that LibTorch does not have. All others can be read all the same.
  bool readable(const std::string& name) const;
  const std::string& dtype_name(const std::string& name) const { return entry(name).dtype; }  ///< the format's
  /// Throws DataError for a tensor that is not readable.
  at::ScalarType dtype(const std::string& name) const;

  at::Tensor read(const std::string& name) const;

  /// Reads the whole file once, from its beginning to its end. `place` names the memory for a tensor: contiguous, on the CPU, of its
  /// dtype and of as many elements; undefined where it is not wanted. `done` is called when a tensor is there. Returns the digest of
  /// the file: until it is compared, nothing of what was read is to be believed.
  FileDigest read_through(const std::function<at::Tensor(const std::string& name)>& place,
                          const std::function<void(const std::string& name)>& done) const;

  /// tensor[begin:end], 0 <= begin <= end <= shape[0].
  at::Tensor read_rows(const std::string& name, std::int64_t begin, std::int64_t end) const;

 private:
  struct Entry {
    std::string name;
    std::string dtype;  ///< the format's name
    std::vector<std::int64_t> shape;
    std::uint64_t begin;  ///< in the file
    std::uint64_t end;
  };

  void read_header(const InputFile& file);
  void add(const std::string& name, Entry entry);
  void require_tiles(std::uint64_t data_begin) const;
  std::vector<const Entry*> in_order() const;  ///< of the file
  const Entry& entry(const std::string& name) const;
  at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape, std::uint64_t begin) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::filesystem::path path_;
  InputFile::Version version_;  ///< of the file
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

using NamedTensor = std::pair<std::string, at::Tensor>;

/// Writes CPU tensors in the given order and puts the file on the disk. Throws FileError.
FileDigest write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace longnet
