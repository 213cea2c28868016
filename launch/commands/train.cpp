#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/control_word.h"
#include "launch/commands/commands.h"
#include "launch/job/version.h"
#include "launch/output/log.h"
#include "launch/output/peak_memory.h"
#include "launch/output/progress.h"
#include "launch/output/run_folder.h"
#include "launch/training/evaluation.h"
#include "launch/training/restore.h"
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

Log open_log(const fs::path& run) {
  std::error_code error;
  fs::create_directories(run, error);
  if (error) throw ConfigError("run: " + run.string() + " cannot be created: " + error.message());
  return Log(run / "log.txt");
}

/// Continues from a checkpoint as the user wishes: sets the training's progress and state. Collective.
void resume(Training& training, const std::string& wish, const Log& log) {
  Job& job = training.job;
  Communicator& world = *job.mesh.world;
  const auto folder = checkpoint_folder(job.configuration.run);
  std::vector<fs::path> candidates;
  agree(world, [&] {
    candidates = list_checkpoints(folder);
    if (wish == "none" && !candidates.empty()) {
      throw ConfigError("--resume none, but " + folder.string() +
                        " holds checkpoints; choose another run folder (--set run=...)");
    }
    if (wish != "none" && wish != "auto") candidates = {wish};
  });
  const auto states = training_states(job.model->parameters(), training.optimizer);
  for (const fs::path& candidate : candidates) {
    try {
      training.progress = load_checkpoint(world, candidate, job.model->parameters().list(), states);
      log.info("resumed from " + candidate.string() + " at step " + std::to_string(training.progress.step));
      return;
    } catch (const AgreedError& error) {
      if (wish != "auto" || candidate == candidates.back()) throw;
      log.warn(std::string(error.what()) + "; trying an older checkpoint");
    }
  }
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

void save(Training& training) {
  const Job& job = training.job;
  const Configuration& config = job.configuration;
  ParameterSet& parameters = training.job.model->parameters();
  save_checkpoint(*job.mesh.world, checkpoint_folder(config.run), training.progress,
                  {static_cast<std::uint64_t>(config.training.seed), job.mesh.data_size, job.mesh.sequence->size(),
                   version, job.resolved},
                  parameters.list(), training_states(parameters, training.optimizer), config.checkpoint.keep);
}

/// What this rank wants to happen after step number `step`.
ControlWord wishes_for(std::int64_t step, const Job& job, SignalWatch& signals) {
  const Configuration& config = job.configuration;
  const auto due = [&](std::int64_t every) { return every > 0 && step % every == 0; };
  ControlWord wishes;
  wishes.stop = step >= config.training.steps;
  wishes.signal = signals.requested();
  wishes.save = wishes.stop || wishes.signal || due(config.checkpoint.every_steps);
  wishes.evaluate = due(config.training.evaluate_every_steps);
  wishes.peak_memory_bytes = peak_memory_bytes(job.device);
  return wishes;
}

/// A training from its first step here to its last.
class Run {
 public:
  /// Opens the run folder and continues from a checkpoint if there is one to continue from. Collective.
  Run(Job& job, const std::string& resume_wish, SignalWatch& signals)
      : job_(job),
        config_(job.configuration),
        signals_(signals),
        first_(job.mesh.is_first()),
        log_(open()),
        training_{job,
                  AdamW(job.model->parameters(),
                        {config_.optimizer.betas, config_.optimizer.epsilon, config_.optimizer.weight_decay}),
                  {}},
        progress_(log_, config_.training.steps, config_.logging.every_steps, first_ && on_terminal()) {
    describe_run(job_, log_);
    resume(training_, resume_wish, log_);
    agree(*job_.mesh.world, [&] {
      if (first_) folder_.emplace(config_.run, job_.resolved, config_.logging.tensorboard, training_.progress.step);
    });
  }

  /// The exit code. Steps overlap: while the device works on one, the host gives it the next and then reads the numbers
  /// of the one before. What happens after a step was agreed on while the step before it ran.
  int operator()() {
    Communicator& world = *job_.mesh.world;
    const TrainingProgress& progress = training_.progress;
    if (progress.step < config_.training.steps) wishes_.emplace(world, wishes_for(progress.step + 1, job_, signals_));
    bool stopped = false;
    while (progress.step < config_.training.steps && !stopped) {
      const StartedStep started = training_step(training_);
      const ControlWord decision = wishes_->decision();
      wishes_.emplace(world, wishes_for(progress.step + 1, job_, signals_));
      report_last();
      last_ = {progress.step, progress.tokens, decision.peak_memory_bytes, started};
      stopped = !after_step(decision);
    }
    if (wishes_) wishes_->decision();
    report_last();
    world.barrier();  // nobody lets go of a communicator that another rank still uses
    progress_.clear();
    if (stopped) return requeue_exit_code;
    log_.info("finished step " + std::to_string(progress.step) + " of " + std::to_string(config_.training.steps));
    return 0;
  }

 private:
  Log open() {
    Log log;
    agree(*job_.mesh.world, [&] {
      if (first_) log = open_log(config_.run);
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

  /// Tells of the last step, once.
  void report_last() {
    if (!last_) return;
    const LastStep last = *std::exchange(last_, {});
    const StepResult result = last.started.result();
    const double rate = static_cast<double>(result.tokens) / result.seconds;
    if (first_) {
      folder_->write({last.number, result.loss, result.gradient_norm, result.learning_rate, last.tokens, result.seconds,
                      rate, last.peak_memory_bytes, result.exchange_bytes, result.skipped});
      progress_.report(last.number, result.loss, rate, result.seconds, result.skipped);
    }
    skipped_in_a_row_ = result.skipped ? skipped_in_a_row_ + 1 : 0;
    if (skipped_in_a_row_ < config_.training.skipped_steps_limit) return;
    throw AgreedError(DivergenceError("step " + std::to_string(last.number) + ": loss or gradient was not finite in " +
                                      std::to_string(skipped_in_a_row_) +
                                      " steps in a row; lower optimizer.learning_rate, or resume from an earlier "
                                      "checkpoint"));
  }

  /// Evaluates and saves as the ranks have agreed to; false when they have agreed to stop before the last step.
  bool after_step(const ControlWord& decision) {
    const std::int64_t number = training_.progress.step;
    if (decision.evaluate) {
      report_last();
      const auto evaluation = evaluate(job_, config_.data.sequence_length, config_.training.evaluation_sequences);
      progress_.clear();
      std::string line = "step " + std::to_string(number) + "  validation loss " + std::to_string(evaluation.loss);
      for (std::size_t metric = 0; metric < evaluation.metrics.size(); ++metric) {
        line += "  " + job_.specification.metrics[metric] + " " + std::to_string(evaluation.metrics[metric]);
      }
      log_.info(line);
      if (first_) folder_->write_evaluation(number, evaluation.loss);
    }
    if (decision.save) {
      report_last();
      save(training_);
    }
    if (!decision.signal || decision.stop) return true;
    progress_.clear();
    log_.warn("stopped on request after step " + std::to_string(number) +
              "; the checkpoint is saved, start again to go on");
    return false;
  }

  Job& job_;
  const Configuration& config_;
  SignalWatch& signals_;
  bool first_;
  Log log_;
  Training training_;
  Progress progress_;
  std::optional<RunFolder> folder_;  ///< on the first rank
  std::optional<Agreement> wishes_;  ///< for the step that comes next
  std::optional<LastStep> last_;
  std::int64_t skipped_in_a_row_ = 0;
};

}  // namespace

int train(std::unique_ptr<Communicator> world, const TrainOptions& options, SignalWatch& signals) {
  Job job = start_job(std::move(world), options);
  agree(*job.mesh.world, [&] {
    const Configuration& config = job.configuration;
    check_batch(config.training, job.mesh.data_size);
    if (job.specification.equal_lengths && config.data.type == DataType::Examples &&
        config.training.micro_batch_size > 1) {
      throw ConfigError("training.micro_batch_size is " + std::to_string(config.training.micro_batch_size) +
                        ", but with model.compatibility torchscale the padding of a batch would change its results; "
                        "set it to 1");
    }
    if (!job.specification.trainable) throw ConfigError("model.head.type is none: there is nothing to train");
    if (config.training.evaluate_every_steps > 0) job.data.validation->require_sequence(config.data.sequence_length);
  });
  return Run(job, options.resume, signals)();
}

}  // namespace longnet
