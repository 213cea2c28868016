#include "launch/training/saver.h"

#include <sstream>
#include <utility>

#include "distributed/agreement.h"
#include "launch/training/resume.h"

namespace longnet {

bool Saver::due() const {
  const double minutes = training_.job.configuration.checkpoint.every_minutes;
  const double passed = std::chrono::duration<double, std::ratio<60>>(Clock::now() - last_).count();
  return (minutes > 0 && passed >= minutes) || (failed_ && passed >= 1);
}

void Saver::save(bool last) {
  finish(last);
  if (is_saved()) return;
  const std::int64_t step = training_.progress.step;
  require_equal_replicas(training_);  // every rank writes a part
  last_ = Clock::now();
  try {
    under_way_.emplace(UnderWay{step, begin_saving(training_)});
  } catch (const AgreedError& error) {
    fail(step, error, last);
  }
  // A GPU's memory would be read behind the next step's work, which is in the same queue.
  if (last || training_.job.device.is_cuda()) finish(last);
}

void Saver::finish(bool last) {
  if (!under_way_) return;
  UnderWay ending = std::move(*under_way_);
  under_way_.reset();
  const auto begin = Clock::now();
  try {
    finish_saving(ending.save, training_, log_);
    failed_ = false;
    saved_step_ = ending.step;
    const std::chrono::duration<double> waited = Clock::now() - begin;
    std::ostringstream line;
    line << "saved step " << ending.step << ": a shard of " << ending.save.cost().bytes << " bytes, written in "
         << ending.save.cost().seconds << " s; the training waited " << waited.count() << " s";
    log_.record(line.str());
  } catch (const AgreedError& error) {
    fail(ending.step, error, last);
  }
}

/// Throws `error` again, unless the training is to go on without this checkpoint.
void Saver::fail(std::int64_t step, const Error& error, bool last) {
  const bool of_files = error.exit_code() == CheckpointError("").exit_code();
  const bool stops = training_.job.configuration.checkpoint.on_failure == CheckpointConfig::OnFailure::Stop;
  if (!of_files || last || stops) throw AgreedError(error);
  failed_ = true;
  ++failures_;
  log_.warn("warning: step " + std::to_string(step) + " is not saved: " + error.what() +
            "; training goes on, the next save tries again (checkpoint.on_failure)");
}

}  // namespace longnet
