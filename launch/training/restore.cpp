#include "launch/training/restore.h"

#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/output/run_folder.h"

namespace longnet {

std::vector<FlatState> training_states(const ParameterSet& parameters, const AdamW& optimizer) {
  return {{"", parameters.values()},
          {"optimizer.exp_avg.", optimizer.average()},
          {"optimizer.exp_avg_sq.", optimizer.square_average()}};
}

std::filesystem::path restore_weights(Job& job, const std::string& checkpoint) {
  if (checkpoint == "none") return "a new model";
  std::filesystem::path path = checkpoint;
  agree(*job.mesh.world, [&] {
    if (!path.empty()) return;
    const auto folder = checkpoint_folder(job.configuration.run);
    const auto checkpoints = list_checkpoints(folder);
    if (checkpoints.empty()) {
      throw CheckpointError(folder.string() + ": holds no checkpoint; train first, or name one with --checkpoint");
    }
    path = checkpoints.front();
  });
  const ParameterSet& parameters = job.model->parameters();
  load_checkpoint(*job.mesh.world, path, parameters.list(), {{"", parameters.values()}});
  return path;
}

}  // namespace longnet
