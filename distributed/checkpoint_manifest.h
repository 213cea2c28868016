#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/files/hashing_file.h"
#include "core/range.h"
#include "core/training/spike_guard.h"

/// manifest.json: what a checkpoint is, and which file holds what.
namespace longnet {

/// Where a training run stands.
struct TrainingProgress {
  std::int64_t step = 0;      ///< completed steps
  std::int64_t tokens = 0;    ///< seen in them
  std::int64_t samples = 0;   ///< seen in them
  std::int64_t updates = 0;   ///< steps of them that were not skipped
  LossLevel loss_level = {};  ///< for training.skip_spikes
};

/// What the manifest says about the run.
struct CheckpointNotes {
  std::uint64_t seed = 0;
  std::int64_t data_ranks = 1, sequence_ranks = 1;
  std::string program;                      ///< version
  nlohmann::ordered_json config;            ///< as it was resolved: an object
  std::string train_data, validation_data;  ///< digests of the data; empty where none were read
  std::optional<double> validation_loss;    ///< where these weights were evaluated
};

/// A range of one tensor's elements, in row-major order, and where it is stored.
struct StoredPart {
  std::string file;
  std::string key;  ///< its name in the file
  Range range;
};

struct StoredTensor {
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  std::vector<StoredPart> parts;  ///< in order; they tile the tensor
};

struct Manifest {
  TrainingProgress progress;
  CheckpointNotes notes;
  std::map<std::string, FileDigest> files;
  std::map<std::string, StoredTensor> tensors;
};

/// The manifest as JSON. Its last line but one is a digest of all that is before it.
std::string to_text(const Manifest& manifest);

/// Reads that back. Every field is held against its type and its bounds: counts are not negative, files are named
/// without a folder, tensors lie in files that are listed, and their parts tile them. Throws CheckpointError, which
/// names the field.
Manifest parse_manifest(const std::string& text);

/// Of the checkpoint `folder`. Throws CheckpointError, which names the file.
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace longnet
