#pragma once

#include <filesystem>
#include <string>

#include "core/training/adamw.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/job/job.h"

namespace longnet {

/// What a checkpoint of a training run holds besides the model's weights.
std::vector<FlatState> training_states(const ParameterSet& parameters, const AdamW& optimizer);

/// Loads the weights alone from `checkpoint`, or from the newest of the run when that is empty; keeps those of a new
/// model when it is "none". Collective; throws AgreedError (CheckpointError) when there is none. Returns where the
/// weights came from.
std::filesystem::path restore_weights(Job& job, const std::string& checkpoint);

}  // namespace longnet
