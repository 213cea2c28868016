#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "core/layers/parameters.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/checkpoint_manifest.h"
#include "distributed/communicator.h"

/// Checkpoints that all ranks write together, a shard each (shard-RRRRR-of-WWWWW.safetensors beside manifest.json), and
/// that any number of ranks can read.
namespace longnet {

/// A flat tensor with the layout of ParameterSet::values(), stored by parameters as `prefix` + the parameter's name.
struct FlatState {
  enum class Held { Whole, OwnPart };  ///< what each rank has of it: everything, or its part alone (own_part)

  std::string prefix;
  at::Tensor flat;
  Held held = Held::Whole;
};

/// A checkpoint `folder`/step-NNNNNNNN on its way to the disk: each rank writes its part of each flat tensor on a thread of
/// its own, while the caller goes on. What the states hold on the CPU must not change until it is finished; of what they hold on
/// a GPU this rank's part is copied into pinned memory first.
class CheckpointSave {
 public:
  /// Collective; throws AgreedError when there is no room or no folder can be made.
  CheckpointSave(Communicator& world, const std::filesystem::path& folder, const TrainingProgress& progress,
                 const CheckpointNotes& notes, const std::vector<Parameter>& parameters,
                 const std::vector<FlatState>& states);

  /// Waits until all ranks have written, gives the checkpoint its name, and begins to remove those before it that
  /// `retention` does not keep. On rank 0, returns what else has changed in the folder. Collective; throws AgreedError, after
  /// removing what was written, when a disk refuses.
  Publication finish(Lineage lineage, const Retention& retention);

  /// What writing took, once that is finished.
  struct Cost {
    std::uint64_t bytes = 0;  ///< of all shards
    double seconds = 0;       ///< for this rank's
  };
  const Cost& cost() const { return cost_; }

 private:
  struct Written {
    FileDigest digest;
    double seconds;
  };

  /// agree_on_files(), and removes what was written where that fails: on all ranks, so that nobody writes any more.
  void agree_or_discard(const std::function<void()>& work);

  Communicator& world_;
  std::filesystem::path folder_, partial_;
  Manifest manifest_;
  Cost cost_;
  std::future<Written> written_;  ///< this rank's shard; waits for it when it goes
};

/// What a checkpoint says about itself.
struct CheckpointSummary {
  TrainingProgress progress;
  CheckpointNotes notes;
};

/// Rank 0 reads it, all get the same. Collective; throws AgreedError.
CheckpointSummary summarize_checkpoint(Communicator& world, const std::filesystem::path& path);

/// Fills `states` from the checkpoint `path`. Rank 0 reads the manifest for all; each shard is read once, by one rank, which
/// compares its digest and sends it to the others; then the ranks compare what they hold. Tensors whose names begin with
/// `unwanted` (nothing, when that is empty) are left where they are. Collective; throws AgreedError: CheckpointError when
/// a file is damaged or a tensor missing, left over or of another shape; ConfigError when it is of another dtype. Where a
/// file is damaged the states are filled with NaN, because a part of it has been read.
TrainingProgress load_checkpoint(Communicator& world, const std::filesystem::path& path,
                                 const std::vector<Parameter>& parameters, const std::vector<FlatState>& states,
                                 const std::string& unwanted = "");

}  // namespace longnet
