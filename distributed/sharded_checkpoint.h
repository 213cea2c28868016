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
/// only once it is complete and on the disk; whatever has no valid manifest is not a checkpoint. The checkpoints of a
/// folder are one branch of a training: those of a branch that was left are set aside under another name, so that the
/// newest is always the one of the highest step.
namespace longnet {

/// Where a training run stands.
struct TrainingProgress {
  std::int64_t step = 0;     ///< completed steps
  std::int64_t tokens = 0;   ///< seen in them
  std::int64_t samples = 0;  ///< seen in them
  std::int64_t updates = 0;  ///< steps of them that were not skipped
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
  nlohmann::ordered_json data = {};  ///< digests of the data: `train`, `validation`; null where none were read
};

/// Writes `folder`/step-NNNNNNNN, then removes all but it and the newest `keep` - 1 before it. Rank r stores the r-th of
/// equal parts of each flat tensor. Collective; throws AgreedError.
void save_checkpoint(Communicator& world, const std::filesystem::path& folder, const TrainingProgress& progress,
                     const CheckpointNotes& notes, const std::vector<Parameter>& parameters,
                     const std::vector<FlatState>& states, std::int64_t keep);

/// What a folder of checkpoints holds.
struct CheckpointList {
  std::vector<std::filesystem::path> checkpoints;  ///< newest first: their manifests can be read
  std::vector<std::string> passed_over;            ///< what looks like a checkpoint and is none, each with the reason
  std::vector<std::filesystem::path> set_aside;    ///< of branches that were left
};

/// Rank 0 looks, all get its answer. A folder that is not there is empty. Collective; throws AgreedError when it cannot
/// be read.
CheckpointList list_checkpoints(Communicator& world, const std::filesystem::path& folder);

/// Makes the checkpoints of `folder` beyond `step` stop counting, because the training goes on from there: renames them to
/// abandoned-step-NNNNNNNN. Returns their new names. Collective; throws AgreedError.
std::vector<std::filesystem::path> set_aside_after(Communicator& world, const std::filesystem::path& folder,
                                                   std::int64_t step);

/// What a checkpoint says about itself.
struct CheckpointSummary {
  TrainingProgress progress;
  nlohmann::ordered_json config;  ///< of the run that wrote it
  nlohmann::ordered_json data;    ///< see CheckpointNotes
};

/// Rank 0 reads it, all get the same. Collective; throws AgreedError.
CheckpointSummary summarize_checkpoint(Communicator& world, const std::filesystem::path& path);

/// Fills `states` from the checkpoint `path` after comparing the digest of every shard. Collective; throws AgreedError
/// when a file is damaged or a tensor missing or of another shape or dtype.
TrainingProgress load_checkpoint(Communicator& world, const std::filesystem::path& path,
                                 const std::vector<Parameter>& parameters, const std::vector<FlatState>& states);

}  // namespace longnet
