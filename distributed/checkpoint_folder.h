#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distributed/communicator.h"

/// The folder that holds the checkpoints of a run.
///
/// A checkpoint is a folder `step-NNNNNNNN` with a sound manifest. It appears under its name only once it is complete and
/// on the disk. Those of one folder are one branch of a training: what belongs to a branch that was left is set aside
/// under another name, so that the newest is always the one of the highest step.
namespace longnet {

/// The name of the checkpoint after `step`.
std::string checkpoint_name(std::int64_t step);

/// Where that checkpoint is written before it gets its name. `run` tells apart what several jobs write.
std::filesystem::path partial_folder(const std::filesystem::path& folder, std::int64_t step, const std::string& run);

/// What a folder of checkpoints holds.
struct CheckpointList {
  std::vector<std::filesystem::path> checkpoints;  ///< newest first: their manifests are sound
  std::vector<std::string> passed_over;            ///< what looks like a checkpoint and is none, each with the reason
  std::vector<std::filesystem::path> set_aside;    ///< of branches that were left
};

/// Rank 0 looks, all get its answer. A folder that is not there is empty. Collective; throws AgreedError when it cannot
/// be read.
CheckpointList list_checkpoints(Communicator& world, const std::filesystem::path& folder);

/// Whether `checkpoint` is one of those that count in `folder`, so that those before it are its past. Collective; throws
/// AgreedError.
bool is_in_force(Communicator& world, const std::filesystem::path& checkpoint, const std::filesystem::path& folder);

/// Makes all checkpoints of `folder` beyond `step` stop counting, because the training goes on from there: renames them to
/// abandoned-step-NNNNNNNN. Returns their new names. Collective; throws AgreedError.
std::vector<std::filesystem::path> set_aside_after(Communicator& world, const std::filesystem::path& folder,
                                                   std::int64_t step);

/// Of what branch of the training a new checkpoint is.
enum class Lineage {
  Continued,  ///< it follows those in the folder
  New,        ///< none of those in the folder is its past: they are set aside
};

/// Which checkpoints stay.
struct Retention {
  std::int64_t newest;           ///< so many of them
  std::int64_t every_steps = 0;  ///< and all of steps that are multiples of it; 0: no others
  std::int64_t best = 0;  ///< and so many of those with the lowest validation loss, on the newest one's held-out data
};

/// A checkpoint, as far as retention is concerned.
struct CheckpointRecord {
  std::int64_t step;
  std::optional<double> validation_loss;  ///< where it was evaluated
};

/// The steps of those that `retention` does not keep, of `checkpoints`, newest first. Of equal losses the newer is better.
std::set<std::int64_t> superseded(const std::vector<CheckpointRecord>& checkpoints, const Retention& retention);

/// What else has changed in a folder when a checkpoint was put into it.
struct Publication {
  std::vector<std::filesystem::path> set_aside;  ///< new names
  /// Of what is no longer kept: those that could not be removed, each with the reason. Under way on a thread, which is waited for when
  /// this goes; not valid where nothing was published.
  std::future<std::vector<std::string>> not_removed;
};

/// Puts the complete folder `partial` in the place of `folder`/step-`step`. Then begins to remove those up to it that
/// `retention` does not keep. Throws Error or std::filesystem::filesystem_error when the checkpoint is
/// not in its place.
Publication publish_checkpoint(const std::filesystem::path& partial, const std::filesystem::path& folder,
                               std::int64_t step, Lineage lineage, const Retention& retention);

/// Removes the checkpoints up to `step`, a sound one, that `retention` does not keep. On rank 0, returns what could not be removed, each with
/// the reason. Collective; throws AgreedError.
std::vector<std::string> make_room(Communicator& world, const std::filesystem::path& folder, std::int64_t step,
                                   const Retention& retention);

/// Removes what saves and removals that did not end have left in `folder`, and returns it. For the job that has the
/// folder to itself. Throws std::filesystem::filesystem_error.
std::vector<std::filesystem::path> remove_leftovers(const std::filesystem::path& folder);

/// agree() on work with the files of checkpoints: whatever fails is a CheckpointError, but for a ConfigError. Collective.
void agree_on_files(Communicator& world, const std::function<void()>& work);

}  // namespace longnet
