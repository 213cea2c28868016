#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace longnet {

/// What passes between a training and the script that starts it, and starts it again (launch/mpirun.sh, launch/scripts/slurm.sbatch), by
/// the environment and a file.
///
/// LONGNET_RESTART is what the script says of this start. The file that LONGNET_SAVED_STEP_FILE names tells the script
/// how far the training is: "started" once all ranks are there, so that signals reach them all; then the step of the newest
/// checkpoint that it has made, as "120", because restarts that bring none come to an end; at last "300 finished".
class Restarts {
 public:
  Restarts();

  /// As one line; empty for the first start.
  const std::string& reason() const { return reason_; }

  // On the first rank. False when the file cannot be written.
  bool tell_started() const { return tell("started"); }
  bool tell_saved(std::int64_t step) const { return tell(std::to_string(step)); }
  bool tell_finished(std::int64_t step) const { return tell(std::to_string(step) + " finished"); }

 private:
  bool tell(const std::string& what) const;

  std::string reason_;
  std::filesystem::path file_;  ///< empty: nobody asks
};

}  // namespace longnet
