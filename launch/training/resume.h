#pragma once

#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "distributed/sharded_checkpoint.h"
#include "launch/output/log.h"
#include "launch/output/run_folder.h"
#include "launch/training/training_step.h"

namespace longnet {

/// A training before its first step.
Training begin_training(Job& job);

/// Begins to save a training, in its run folder: it may go on as far as the next update. Collective; throws AgreedError.
CheckpointSave begin_saving(const Training& training);

/// Ends that, as the next checkpoint of the branch. Collective; throws AgreedError.
Publication finish_saving(CheckpointSave& save, const Training& training);

/// Both.
void save_training(const Training& training);

/// Removes checkpoints before that of `step` that the configuration does not keep. Returns, on the first rank, what could not be
/// removed. Collective; throws AgreedError.
std::vector<std::string> make_room(const Training& training, std::int64_t step);

/// Throws AgreedError unless all ranks hold the same weights, and optimizer states where each has all. Collective.
void require_equal_replicas(const Training& training);

/// Continues it from a checkpoint, whatever that was configured with. Collective; throws AgreedError.
void load_training(Training& training, const std::filesystem::path& checkpoint);

/// Continues it as the user wishes: `auto`, from the run's newest checkpoint that is sound, if there is any; `none`; or
/// from the checkpoint that `wish` names. Compares the configuration of the checkpoint, and tells what has changed. Sets
/// aside what the run folder holds of other branches than that of the checkpoint, and saves there what was loaded unless
/// it is there. Returns what the folder's metrics now are. Collective; throws AgreedError.
MetricsBefore resume_training(Training& training, const std::string& wish,
                              const std::vector<std::string>& allowed_changes, const Log& log);

/// Loads the weights alone from `checkpoint`, or from the newest of the run when that is empty; keeps those of a new
/// model when it is "none". Adds to the job's warnings when its data are others. Collective; throws AgreedError:
/// CheckpointError when there is none, ConfigError when its model is another. Returns where the weights came from.
std::filesystem::path restore_weights(Job& job, const std::string& checkpoint,
                                      const std::vector<std::string>& allowed_changes);

}  // namespace longnet
