#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/configuration/configuration.h"
#include "core/data/dataset.h"

namespace longnet {

/// The training and validation data of a configuration. Validation data are empty when there is none.
struct Data {
  std::shared_ptr<const Dataset> train;
  std::shared_ptr<const Dataset> validation;
  std::string fingerprint;  ///< differs when the data differ: a line for each file
  /// Digests of what is trained on and of what is evaluated: they differ when files, or the part of them, do.
  std::string train_digest, validation_digest;
  std::vector<std::string> warnings = {};
};

/// Opens the data of a configuration for a model that reads `fields`. `cache` is a folder for what has to be converted
/// first. Throws DataError, and ConfigError when data of this type have no such fields.
Data open_data(const DataConfig& config, const std::vector<Field>& fields, const std::filesystem::path& cache);

}  // namespace longnet
