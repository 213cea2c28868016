#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/files/safetensors.h"

namespace longnet {

/// A safetensors file whose tensors were observed along one sequence: a field with a stride of s rows a position has s
/// times as many rows as there are positions.
class Recording {
 public:
  /// Those of `fields` that the file has and `missing` does not name. Throws DataError, with file and field, for one
  /// that is required and not there, has the wrong shape or dtype, or another length than the others; and for a file
  /// that has none with a row at each position.
  /// `name` tells it from the other recordings of the data.
  Recording(const std::filesystem::path& path, std::string name, const std::vector<Field>& fields,
            const std::vector<std::string>& missing);

  const std::filesystem::path& path() const { return path_; }
  const std::string& name() const { return name_; }
  std::int64_t length() const { return length_; }  ///< in positions

  FieldRows read(Range positions) const;

  /// Differs when the file differs: see fingerprint in hashing_file.h.
  std::string fingerprint() const;

 private:
  void examine(const Field& field);
  /// Rows as a model takes them. Throws DataError for tokens that the model has no room for, and for frames that are not
  /// finite.
  at::Tensor usable(const Field& field, const at::Tensor& stored, std::int64_t first_row) const;
  /// Throws DataError for frames with a value that is not finite.
  void require_finite(const Field& field, const at::Tensor& frames, std::int64_t first_row) const;
  [[noreturn]] void fail(const Field& field, const std::string& what) const;

  std::filesystem::path path_;
  std::string name_;
  SafetensorsFile file_;
  std::vector<Field> fields_;  ///< that it has
  std::int64_t length_ = -1;
};

}  // namespace longnet
