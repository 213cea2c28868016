#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/layers/parameters.h"
#include "distributed/communicator.h"

/// Checkpoints that all ranks write together, a shard each, and that any number of ranks can read.
///
/// A folder `step-NNNNNNNN` with manifest.json and shard-RRRRR-of-WWWWW.safetensors files. It appears under its name
/// only once it is complete and on the disk; whatever has no valid manifest is not a checkpoint.
namespace longnet {

/// Where a training run stands.
struct TrainingProgress {
  std::int64_t step = 0;     ///< completed steps
  std::int64_t tokens = 0;   ///< seen in them
  std::int64_t samples = 0;  ///< seen in them
};

/// A flat tensor with the layout of ParameterSet::values(), the same on every rank; its parts are stored as `prefix` +
/// the parameter's name.
struct FlatState {
  std::string prefix;
  at::Tensor flat;
};

/// What the manifest says about the run.
struct CheckpointNotes {
  std::uint64_t seed;
  std::int64_t data_ranks, sequence_ranks;
  std::string program;  ///< version
  nlohmann::ordered_json config;
};

/// Writes `folder`/step-NNNNNNNN, then removes all but the newest `keep` checkpoints. Rank r stores the r-th of equal
/// parts of each flat tensor. Collective; throws AgreedError.
void save_checkpoint(Communicator& world, const std::filesystem::path& folder, const TrainingProgress& progress,
                     const CheckpointNotes& notes, const std::vector<Parameter>& parameters,
                     const std::vector<FlatState>& states, std::int64_t keep);

/// The checkpoints in `folder`, newest first: those with a manifest that can be read, whether or not their shards are
/// sound.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& folder);

/// Fills `states` from the checkpoint `path` after comparing the digest of every shard. Collective; throws AgreedError
/// when a file is damaged or a tensor missing or of another shape or dtype.
TrainingProgress load_checkpoint(Communicator& world, const std::filesystem::path& path,
                                 const std::vector<Parameter>& parameters, const std::vector<FlatState>& states);

}  // namespace longnet
