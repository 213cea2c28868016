#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace longnet {

/// What passes between a training and the script that starts it again (launch/mpirun.sh, launch/scripts/slurm.sbatch), by the environment.
class Restarts {
 public:
  Restarts();

  /// What the script says of this start (LONGNET_RESTART), as one line; empty for the first.
  const std::string& reason() const { return reason_; }

  /// Tells the script that there is a checkpoint of `step`: restarts that bring none come to an end. `finished`: the training has
  /// ended with it. It is written into the file that LONGNET_SAVED_STEP_FILE names, if any, as "120" or "300 finished"; false when
  /// that cannot be written.
  bool tell_saved(std::int64_t step, bool finished) const;

 private:
  std::string reason_;
  std::filesystem::path file_;  ///< empty: nobody asks
};

}  // namespace longnet
