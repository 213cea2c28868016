#include "launch/training/saver.h"

#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/training/resume.h"

namespace longnet {

bool Saver::due() const {
  const double minutes = training_.job.configuration.checkpoint.every_minutes;
  const double passed = std::chrono::duration<double, std::ratio<60>>(Clock::now() - last_).count();
  return (minutes > 0 && passed >= minutes) || (failed_ && passed >= 1);
}

void Saver::save(bool last) {
  if (is_saved()) return;
  require_equal_replicas(training_);  // every rank writes a part
  try {
    save_training(training_, log_);
    failed_ = false;
    note_saved();
  } catch (const AgreedError& error) {
    const bool of_files = error.exit_code() == CheckpointError("").exit_code();
    const bool stops = training_.job.configuration.checkpoint.on_failure == CheckpointConfig::OnFailure::Stop;
    if (!of_files || last || stops) throw;
    failed_ = true;
    ++failures_;
    log_.warn("warning: step " + std::to_string(training_.progress.step) + " is not saved: " + error.what() +
              "; training goes on, the next save tries again (checkpoint.on_failure)");
  }
  last_ = Clock::now();
}

}  // namespace longnet
