#include "launch/training/saver.h"

#include <sstream>
#include <utility>

#include "core/seconds_since.h"
#include "distributed/agreement.h"
#include "launch/training/resume.h"

namespace longnet {

bool Saver::due() const {
  const double minutes = training_.job.configuration.checkpoint.every_minutes;
  const double passed = std::chrono::duration<double, std::ratio<60>>(Clock::now() - last_).count();
  return (minutes > 0 && passed >= minutes) || (failed_ && passed >= 1);
}

void Saver::save(bool last) {
  const auto begin = Clock::now();
  finish_now(last);
  if (!is_saved()) begin_now(last);
  totals_.seconds_waited += seconds_since(begin);
}

void Saver::finish(bool last) {
  const auto begin = Clock::now();
  finish_now(last);
  totals_.seconds_waited += seconds_since(begin);
}

void Saver::begin_now(bool last) {
  const std::int64_t step = training_.progress.step;
  require_equal_replicas(training_);  // every rank writes a part
  last_ = Clock::now();
  try {
    under_way_.emplace(UnderWay{step, begin_with_room()});
  } catch (const AgreedError& error) {
    fail(step, error, last);
  }
  if (last) finish_now(last);
}

/// What is on its way out may be in the way, and what should have gone.
CheckpointSave Saver::begin_with_room() {
  try {
    return begin_saving(training_);
  } catch (const AgreedError&) {
    if (!has_saved()) throw;
  }
  end_removal();
  tell_not_removed(make_room(training_, saved_step_));
  return begin_saving(training_);
}

void Saver::end_removal() {
  if (not_removed_.valid()) tell_not_removed(not_removed_.get());
}

/// Once of each.
void Saver::tell_not_removed(const std::vector<std::string>& reasons) {
  for (const std::string& reason : reasons) {
    if (told_.insert(reason).second) log_.warn("warning: the checkpoint is saved, but " + reason);
  }
}

void Saver::finish_now(bool last) {
  if (under_way_) {
    UnderWay ending = std::move(*under_way_);
    under_way_.reset();
    publish(ending, last);
  }
  if (last) end_removal();
}

void Saver::publish(UnderWay& ending, bool last) {
  const auto begin = Clock::now();
  end_removal();
  try {
    not_removed_ = finish_saving(ending.save, training_).not_removed;
  } catch (const AgreedError& error) {
    return fail(ending.step, error, last);
  }
  failed_ = false;
  saved_step_ = ending.step;
  const CheckpointSave::Cost& cost = ending.save.cost();
  ++totals_.saves;
  totals_.bytes += cost.bytes;
  totals_.seconds_written += cost.seconds;
  std::ostringstream line;
  line << "saved step " << ending.step << ": " << cost.bytes << " bytes, the shard of the first rank written in "
       << cost.seconds << " s; the training waited " << seconds_since(begin) << " s for it";
  log_.record(line.str());
  saved_(ending.step);
}

/// Throws `error` again, unless the training is to go on without this checkpoint.
void Saver::fail(std::int64_t step, const Error& error, bool last) {
  const bool of_files = error.exit_code() == CheckpointError("").exit_code();
  const bool stops = training_.job.configuration.checkpoint.on_failure == CheckpointConfig::OnFailure::Stop;
  if (!of_files || last || stops) throw AgreedError(error);
  failed_ = true;
  ++totals_.failures;
  log_.warn("warning: step " + std::to_string(step) + " is not saved: " + error.what() +
            "; training goes on, the next save tries again (checkpoint.on_failure)");
}

}  // namespace longnet
