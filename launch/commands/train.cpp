#include <ATen/ATen.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/control_word.h"
#include "launch/commands/commands.h"
#include "launch/job/restarts.h"
#include "launch/job/start_up.h"
#include "launch/job/version.h"
#include "launch/output/log.h"
#include "launch/output/peak_memory.h"
#include "launch/output/progress.h"
#include "launch/output/run_folder.h"
#include "launch/output/run_lock.h"
#include "launch/output/step_trace.h"
#include "launch/output/writable_folder.h"
#include "launch/training/evaluation.h"
#include "launch/training/resume.h"
#include "launch/training/saver.h"
#include "launch/training/training_step.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

constexpr int requeue_exit_code = 75;

void check_batch(const TrainingConfig& training, std::int64_t data_ranks) {
  const std::int64_t whole = data_ranks * training.micro_batch_size;
  if (training.batch_size % whole == 0) return;
  throw ConfigError("training.batch_size is " + std::to_string(training.batch_size) + ", which is no multiple of " +
                    std::to_string(whole) + ": " + std::to_string(data_ranks) +
                    " data-parallel groups of ranks times " + "training.micro_batch_size " +
                    std::to_string(training.micro_batch_size));
}

/// Refuses a run folder that can never be written, before any work is done for it. A disk that is full may change.
Log open_log(const fs::path& run) {
  for (const fs::path& folder : {run, fs::path(checkpoint_folder(run.string()))}) {
    const std::error_code error = make_writable_folder(folder);
    if (!error || error == std::errc::no_space_on_device) continue;
    throw ConfigError("run: " + folder.string() + " cannot be written: " + error.message());
  }
  return Log(run / "log.txt");
}

void describe_run(Job& job, const Log& log) {
  const Configuration& config = job.configuration;
  const ProcessMesh& mesh = job.mesh;
  std::ostringstream line;
  const bool whole = config.data.type == DataType::Examples;
  line << "longnet " << version << ": " << job.model->parameters().count() << " parameters; " << mesh.world->size()
       << " ranks = " << mesh.data_size << " data x " << mesh.sequence->size() << " sequence, with " << job.threads
       << " threads each, on " << (job.device.is_cuda() ? "GPUs; " : "the CPU; ") << (whole ? "up to " : "")
       << config.training.batch_size * config.data.sequence_length << " tokens a step";
  log.info(line.str());
  log.info("data: " + std::to_string(job.data.train->size()) + " tokens to train on, " +
           std::to_string(job.data.validation->size()) + " held out; run folder " + config.run);
  for (const auto& warning : job.warnings) log.warn("warning: " + warning);
}

/// What this rank wants to happen after step number `step`.
ControlWord wishes_for(std::int64_t step, const Job& job, SignalWatch& signals, const Saver& saver) {
  const Configuration& config = job.configuration;
  const auto due = [&](std::int64_t every) { return every > 0 && step % every == 0; };
  ControlWord wishes;
  wishes.stop = step >= config.training.steps;
  wishes.signal = signals.requested();
  wishes.save = wishes.stop || wishes.signal || due(config.checkpoint.every_steps) ||
                (job.mesh.is_first() && saver.due());  // one clock decides
  wishes.evaluate = due(config.training.evaluate_every_steps);
  wishes.save |= wishes.evaluate && config.checkpoint.keep_best > 0;
  wishes.peak_memory_bytes = peak_memory_bytes(job.device);
  return wishes;
}

/// Ends this process, and mpirun then the others, because there is nothing to save yet. The first rank says so: mpirun
/// sends it a signal, too, where only another had got one.
SignalWatch::Answer leaving_at_once(bool first, std::weak_ptr<RunLock> lock = {}) {
  return [first, lock = std::move(lock)](int) {
    if (first) std::fputs("longnet: stopped before the first step; nothing to save\n", stderr);
    if (const auto held = lock.lock()) held->give_back();
    std::_Exit(requeue_exit_code);
  };
}

std::string remark_on(const StepResult& result) {
  if (result.spike) return "skipped: a spike";
  return result.skipped ? "skipped: not finite" : "";
}

/// A training from its first step here to its last.
class Run {
 public:
  /// Opens the run folder and continues from a checkpoint if there is one to continue from. Collective.
  Run(Job& job, const TrainOptions& options, Process& process)
      : job_(job),
        config_(job.configuration),
        signals_(process.signals),
        start_up_(process.start_up),
        first_(job.mesh.is_first()),
        log_(open()),
        training_(begin_training(job)),
        saver_(training_, log_,
               [this](std::int64_t step) {
                 if (first_) warn_unless(restarts_.tell_saved(step));
               }),
        progress_(log_, config_.training.steps, config_.logging.every_steps, first_ && on_terminal()) {
    describe_run(job_, log_);
    if (!restarts_.reason().empty()) log_.info("started again: " + restarts_.reason());
    start_up_.finished("optimizer");
    const MetricsBefore metrics = resume_training(training_, options.resume, options.allowed_changes, log_);
    saver_.note_saved();
    start_up_.finished("checkpoint");
    const std::int64_t trace = config_.logging.trace_step;
    if (trace > 0 && trace <= training_.progress.step) {
      log_.warn("warning: logging.trace_step is passed over: step " + std::to_string(trace) + " is done");
    }
    if (first_) {
      folder_ = std::make_unique<RunFolder>(config_.run, job_.resolved, config_.logging.tensorboard,
                                            training_.progress.step, metrics, log_);
    }
  }

  /// The exit code.
  int operator()() {
    signals_.collect_wishes();
    training_.before_update = [this] { saver_.finish(); };
    try {
      return run();
    } catch (const AgreedError& error) {  // on all ranks: they leave together, and leave nothing under way
      const bool data_went_bad = error.exit_code() == DataError("").exit_code();
      save_before_leaving(/*steps_are_sound=*/data_went_bad);
      if (last_) last_->started.result();
      job_.mesh.world->barrier();
      throw;
    }
  }

 private:
  /// Steps overlap: while the device works on one, the host gives it the next and then reads the numbers of the one
  /// before. What happens after a step is agreed on as soon as its orders are given, so that a signal is answered then,
  /// or within the step where that would take long.
  int run() {
    Communicator& world = *job_.mesh.world;
    const TrainingProgress& progress = training_.progress;
    bool stopped = false;
    while (progress.step < config_.training.steps && !stopped) {
      const auto started = next_step();
      if (!started) {
        give_up_step();
        stopped = true;
        continue;
      }
      const ControlWord decision = agree_on(world, wishes_for(progress.step, job_, signals_, saver_));
      report(std::exchange(last_, LastStep{progress.step, progress.tokens, decision.peak_memory_bytes, *started}));
      stopped = !after_step(decision);
    }
    report_last();
    saver_.finish(/*last=*/true);
    world.barrier();  // nobody lets go of a communicator that another rank still uses
    progress_.clear();
    if (stopped) return requeue_exit_code;
    log_.info("finished step " + std::to_string(progress.step) + " of " + std::to_string(config_.training.steps));
    if (first_) warn_unless(restarts_.tell_finished(progress.step));
    return 0;
  }

  /// Finishes a save that is under way: its step was sound. Saves what came after it, too, where the steps made are sound.
  void save_before_leaving(bool steps_are_sound) {
    try {
      saver_.finish(/*last=*/true);
      if (!steps_are_sound) return;
      report_last();
      if (saver_.is_saved()) return;
      ControlWord decision;
      decision.signal = true;
      save(decision);
      if (saver_.is_saved()) log_.warn("step " + std::to_string(training_.progress.step) + " is saved");
    } catch (const AgreedError& error) {
      log_.warn(std::string("warning: what was trained is not saved: ") + error.what());
    }
  }

  std::optional<StartedStep> next_step() {
    const bool traced = first_ && training_.progress.step + 1 == config_.logging.trace_step;
    return traced ? traced_step() : training_step(training_, stop_wish());
  }

  /// Somebody who asks the job to stop waits a little for what is under way, but not for hours.
  StopWish stop_wish() {
    constexpr double patience_seconds = 10;
    return [this](double seconds_left) { return signals_.requested() && seconds_left > patience_seconds; };
  }

  /// A step that is recorded, alone: the one before it has ended, and so has this one. It trains on where the trace cannot be written.
  std::optional<StartedStep> traced_step() {
    report_last();
    StepTrace trace;
    auto started = training_step(training_, stop_wish());
    if (!started) return {};
    started->result();
    const fs::path path = fs::path(config_.run) / ("trace-step-" + std::to_string(training_.progress.step) + ".json");
    try {
      trace.write(path);
      log_.info("what step " + std::to_string(training_.progress.step) + " did is in " + path.string());
    } catch (const std::exception& error) {
      log_.warn(std::string("warning: ") + error.what());
    }
    return started;
  }

  /// Opens the log, and keeps other jobs out of the folder.
  Log open() {
    Log log;
    agree(*job_.mesh.world, [&] {
      if (!first_) return;
      log = open_log(config_.run);
      lock_ = std::make_shared<RunLock>(config_.run,
                                        RunLock::Settings{.say = [log](const std::string& line) { log.warn(line); }});
      if (!lock_->is_held()) return;
      signals_.answer_with(leaving_at_once(first_, lock_));
      for (const fs::path& path : remove_leftovers(checkpoint_folder(config_.run))) {
        log.warn("removed what a save that did not end had left: " + path.string());
      }
    });
    return log;
  }

  /// A step whose numbers have not been read.
  struct LastStep {
    std::int64_t number;
    std::int64_t tokens;
    std::int64_t peak_memory_bytes;
    StartedStep started;
  };

  /// Throws when another job has the folder. On the first rank.
  void hold_folder(bool now) {
    if (lock_->require_held(now)) folder_->begin_anew();
  }

  /// Tells of the last step, once.
  void report_last() { report(std::exchange(last_, {})); }

  void report(const std::optional<LastStep>& step) {
    if (!step) return;
    const StepResult result = step->started.result();
    if (!std::exchange(has_started_, true)) {
      start_up_.finished("first step");
      log_.record("start-up took " + start_up_.text());
    }
    const double rate = static_cast<double>(result.tokens) / result.seconds;
    if (first_) {
      hold_folder(/*now=*/false);
      const Saver::Totals& saver = saver_.totals();
      folder_->write({step->number, result.loss, result.gradient_norm, result.learning_rate, step->tokens,
                      result.seconds, rate, step->peak_memory_bytes, result.exchange_bytes, result.skipped,
                      result.spike, saver.saves, saver.failures, saver.bytes, saver.seconds_written,
                      saver.seconds_waited});
      progress_.report(step->number, result.loss, rate, result.seconds, remark_on(result));
    }
    const bool not_finite = result.skipped && !result.spike;
    skipped_in_a_row_ = not_finite ? skipped_in_a_row_ + 1 : 0;
    if (!not_finite) told_of_unsaved_ = false;
    if (skipped_in_a_row_ < config_.training.skipped_steps_limit) return;
    throw AgreedError(DivergenceError("step " + std::to_string(step->number) + ": loss or gradient was not finite in " +
                                      std::to_string(skipped_in_a_row_) +
                                      " steps in a row; lower optimizer.learning_rate, or resume from an earlier "
                                      "checkpoint"));
  }

  void warn_unless(bool told) {
    if (!told)
      log_.warn(
          "warning: LONGNET_SAVED_STEP_FILE cannot be written: the script that started this training does not learn "
          "how far it is");
  }

  void evaluate_now() {
    const std::int64_t number = training_.progress.step;
    const auto evaluation =
        evaluate(job_, config_.data.sequence_length, config_.training.evaluation_sequences, stop_wish());
    progress_.clear();
    if (!evaluation) {
      log_.warn("the evaluation after step " + std::to_string(number) + " is given up, because the job is to stop");
      return;
    }
    if (std::isfinite(evaluation->loss)) training_.validation_loss = evaluation->loss;
    std::string line = "step " + std::to_string(number) + "  validation loss " + std::to_string(evaluation->loss);
    for (std::size_t metric = 0; metric < evaluation->metrics.size(); ++metric) {
      line += "  " + job_.specification.metrics[metric] + " " + std::to_string(evaluation->metrics[metric]);
    }
    log_.info(line);
    if (first_) folder_->write_evaluation(number, evaluation->loss);
  }

  /// Saves, unless the step was not finite. What such a step leaves is what it found: weights that may be dead, and must not
  /// displace those from before they were. Its samples come again when the run goes on from there.
  void save(const ControlWord& decision) {
    if (skipped_in_a_row_ == 0) {
      agree(*job_.mesh.world, [&] {
        if (first_) hold_folder(/*now=*/true);
      });
      return saver_.save(/*last=*/decision.stop || decision.signal);
    }
    const std::string what = "loss or gradient was not finite in the last " + std::to_string(skipped_in_a_row_) +
                             " steps: they are not saved";
    if (decision.stop) {
      throw AgreedError(DivergenceError(what +
                                        "; the weights or the data hold what is not finite, or overflow in this "
                                        "precision: resume from an earlier checkpoint, lower optimizer.learning_rate"));
    }
    if (!std::exchange(told_of_unsaved_, true)) log_.warn("warning: " + what);
  }

  /// Evaluates and saves as the ranks have agreed to; false when they have agreed to stop before the last step.
  bool after_step(const ControlWord& decision) {
    const std::int64_t every = config_.training.compare_replicas_every_steps;
    if (every > 0 && training_.progress.step % every == 0) require_equal_replicas(training_);
    if (decision.evaluate || decision.save) report_last();
    if (decision.evaluate) evaluate_now();
    if (decision.save) save(decision);
    if (!decision.signal || decision.stop) return true;
    tell_stopped("");
    return false;
  }

  /// What is left when the ranks have given up the step after the last.
  void give_up_step() {
    report_last();
    ControlWord decision;
    decision.signal = true;
    save(decision);
    tell_stopped("; step " + std::to_string(training_.progress.step + 1) +
                 ", which would have taken long, is given up");
  }

  void tell_stopped(const std::string& more) {
    progress_.clear();
    const std::int64_t step = training_.progress.step;
    if (step == 0) {
      log_.warn("stopped on request in the first step; nothing to save");
      return;
    }
    const char* what = "; the checkpoint is saved, start again to go on";
    if (skipped_in_a_row_ > 0) {
      what = saver_.has_saved()
                 ? "; start again to go on from the checkpoint before the steps that were skipped"
                 : "; nothing is saved, because the last steps were skipped and there is no checkpoint before them";
    }
    log_.warn("stopped on request after step " + std::to_string(step) + more + what);
  }

  Job& job_;
  const Configuration& config_;
  SignalWatch& signals_;
  StartUp& start_up_;
  Restarts restarts_;
  bool first_;
  std::shared_ptr<RunLock> lock_;  ///< on the first rank
  Log log_;
  Training training_;
  Saver saver_;
  Progress progress_;
  std::unique_ptr<RunFolder> folder_;  ///< on the first rank
  std::optional<LastStep> last_;
  bool has_started_ = false;           ///< the first step has ended
  std::int64_t skipped_in_a_row_ = 0;  ///< steps that were not finite
  bool told_of_unsaved_ = false;       ///< since the last step that was
};

}  // namespace

int train(std::unique_ptr<Communicator> world, const TrainOptions& options, Process& process) {
  process.signals.answer_with(leaving_at_once(world->rank() == 0));
  if (world->rank() == 0) Restarts().tell_started();
  std::signal(SIGPIPE, SIG_IGN);  // nobody reads the output any more: the training goes on
  Job job = start_job(std::move(world), options);
  process.start_up.finished("configuration, data and model");
  agree(*job.mesh.world, [&] {
    const Configuration& config = job.configuration;
    check_batch(config.training, job.mesh.data_size);
    if (job.specification.equal_lengths && config.data.type == DataType::Examples &&
        config.training.micro_batch_size > 1) {
      throw ConfigError("training.micro_batch_size is " + std::to_string(config.training.micro_batch_size) +
                        ", but with model.compatibility torchscale the padding of a batch would change its results; "
                        "set it to 1");
    }
    if (config.logging.trace_step > config.training.steps) {
      throw ConfigError("logging.trace_step is " + std::to_string(config.logging.trace_step) +
                        ", but the training ends with step " + std::to_string(config.training.steps));
    }
    if (config.checkpoint.keep_best > 0 && config.training.evaluate_every_steps == 0) {
      throw ConfigError("checkpoint.keep_best is " + std::to_string(config.checkpoint.keep_best) +
                        ", but nothing is evaluated: set training.evaluate_every_steps");
    }
    if (!job.specification.trainable) throw ConfigError("model.head.type is none: there is nothing to train");
    if (config.training.evaluate_every_steps > 0) require_held_out(job, config.data.sequence_length);
  });
  return Run(job, options, process)();
}

}  // namespace longnet
