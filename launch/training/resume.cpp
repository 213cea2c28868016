#include "launch/training/resume.h"

#include <algorithm>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/flat_parts.h"
#include "distributed/replica_check.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/job/version.h"
#include "launch/output/run_folder.h"
#include "launch/training/configuration_change.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* optimizer_prefix = "optimizer.";

/// What a checkpoint of a training run holds.
std::vector<FlatState> states_of(const Training& training) {
  using Held = FlatState::Held;
  std::vector<FlatState> states{{"", training.job.model->parameters().values()}};
  const Held held = training.job.configuration.parallel.shard_optimizer ? Held::OwnPart : Held::Whole;
  for (const auto& [name, flat] : training.optimizer->states()) {
    states.push_back({optimizer_prefix + name + ".", flat, held});
  }
  return states;
}

/// Also compares the data.
std::vector<ConfigurationChange> changes_since(const CheckpointSummary& checkpoint, const Job& job) {
  auto changes = changes_between(checkpoint.notes.config, job.resolved);
  const std::string &before = checkpoint.notes.train_data, &now = job.data.train_digest;
  if (!before.empty() && !now.empty() && before != now)
    changes.push_back({"data", before, now, KeyEffect::SampleOrder});
  const std::string &held_out_before = checkpoint.notes.validation_data, &held_out = job.data.validation_digest;
  if (!held_out_before.empty() && !held_out.empty() && held_out_before != held_out) {
    changes.push_back({"held-out data", held_out_before, held_out, KeyEffect::Training});
  }
  return changes;
}

/// What of these a result without training depends on.
std::vector<ConfigurationChange> of_evaluation(std::vector<ConfigurationChange> changes) {
  std::erase_if(changes, [](const ConfigurationChange& change) {
    return !change.key.starts_with("data") && change.key != "held-out data" && change.key != "training.precision";
  });
  return changes;
}

/// A line that tells them; empty when there are none.
std::string told(const std::vector<ConfigurationChange>& changes) {
  std::string line;
  for (const ConfigurationChange& change : changes) line += (line.empty() ? "" : "; ") + change.text();
  return line.empty() ? line : "changed since the checkpoint: " + line;
}

/// Throws unless the checkpoint's configuration and the job's go together. All ranks compare the same.
void require_match(const std::vector<ConfigurationChange>& changes, const std::vector<std::string>& allowed,
                   bool order_matters, const fs::path& checkpoint) {
  try {
    require_compatible(changes, allowed, order_matters, checkpoint.string());
  } catch (const ConfigError& error) {
    throw AgreedError(error);
  }
}

void require_steps_left(const Job& job, const TrainingProgress& progress, const fs::path& checkpoint) {
  const std::int64_t steps = job.configuration.training.steps;
  if (progress.step <= steps) return;
  throw AgreedError(ConfigError("training.steps is " + std::to_string(steps) + ", but " + checkpoint.string() +
                                " is after step " + std::to_string(progress.step) +
                                "; set it higher, or go back with --resume"));
}

/// The checkpoints to try, best first.
std::vector<fs::path> candidates_for(const std::string& wish, const CheckpointList& list, const fs::path& folder,
                                     const Log& log) {
  const bool empty = list.checkpoints.empty() && list.passed_over.empty() && list.set_aside.empty();
  if (wish == "none") {
    if (empty) return {};
    throw AgreedError(ConfigError("--resume none, but " + folder.string() +
                                  " holds checkpoints; choose another run folder (--set run=...)"));
  }
  for (const std::string& reason : list.passed_over) log.warn("warning: passed over: " + reason);
  if (wish != "auto") return {wish};
  if (!list.checkpoints.empty() || empty) return list.checkpoints;
  const std::string reason =
      list.passed_over.empty() ? list.set_aside.front().string() + " was set aside" : list.passed_over.front();
  throw AgreedError(CheckpointError(folder.string() + ": holds no checkpoint that can be used: " + reason +
                                    "; name one with --resume, or train anew in another run folder (--set run=...)"));
}

void tell_set_aside(const std::vector<fs::path>& moved, const fs::path& checkpoint, const Log& log) {
  for (const fs::path& path : moved) {
    log.warn("set aside, because the training goes on from " + checkpoint.string() + ": " + path.string());
  }
}

Retention retention_of(const Training& training) {
  const CheckpointConfig& config = training.job.configuration.checkpoint;
  return {config.keep, config.keep_every_steps, config.keep_best};
}

/// Makes the run folder's checkpoints the past of what was loaded from `checkpoint`, and no others. What was loaded is
/// safe in the folder before others are moved.
MetricsBefore enter_branch(const Training& training, const fs::path& checkpoint, const fs::path& folder,
                           const Log& log) {
  Communicator& world = *training.job.mesh.world;
  const std::int64_t step = training.progress.step;
  if (is_in_force(world, checkpoint, folder)) {
    const auto moved = set_aside_after(world, folder, step);
    tell_set_aside(moved, checkpoint, log);
    return moved.empty() ? MetricsBefore::Same : MetricsBefore::SameUpToHere;
  }
  Publication saved = begin_saving(training).finish(Lineage::New, retention_of(training));
  if (saved.not_removed.valid()) {
    for (const std::string& what : saved.not_removed.get()) log.warn("warning: " + what);
  }
  tell_set_aside(saved.set_aside, checkpoint, log);
  log.info("saved as " + (folder / checkpoint_name(step)).string());
  return MetricsBefore::OfAnotherBranch;
}

}  // namespace

Training begin_training(Job& job) {
  ParameterSet& parameters = job.model->parameters();
  const auto parts = job.configuration.parallel.shard_optimizer
                         ? std::vector{own_part(*job.mesh.world, parameters.count())}
                         : all_parts(*job.mesh.world, parameters.count());
  Training training{job, make_optimizer(job.configuration.optimizer, parameters, parts), {}, {}};
  const double threshold = job.configuration.training.skip_spikes;
  if (threshold > 0) training.spikes.emplace(threshold, job.device);
  return training;
}

CheckpointSave begin_saving(const Training& training) {
  const Job& job = training.job;
  const Configuration& config = job.configuration;
  TrainingProgress progress = training.progress;
  progress.updates = training.optimizer->updates();
  if (training.spikes) progress.loss_level = training.spikes->level();
  return {*job.mesh.world,
          checkpoint_folder(config.run),
          progress,
          {static_cast<std::uint64_t>(config.training.seed), job.mesh.data_size, job.mesh.sequence->size(), version,
           job.resolved, job.data.train_digest, job.data.validation_digest, training.validation_loss},
          job.model->parameters().list(),
          states_of(training)};
}

Publication finish_saving(CheckpointSave& save, const Training& training) {
  return save.finish(Lineage::Continued, retention_of(training));
}

std::vector<std::string> make_room(const Training& training, std::int64_t step) {
  const Job& job = training.job;
  return make_room(*job.mesh.world, checkpoint_folder(job.configuration.run), step, retention_of(training));
}

void save_training(const Training& training) {
  CheckpointSave save = begin_saving(training);
  finish_saving(save, training);
}

void require_equal_replicas(const Training& training) {
  std::vector<at::Tensor> tensors;
  for (const FlatState& state : states_of(training)) {
    if (state.held == FlatState::Held::Whole) tensors.push_back(state.flat);
  }
  require_equal_replicas(*training.job.mesh.world, tensors);
}

void load_training(Training& training, const fs::path& checkpoint) {
  training.progress = load_checkpoint(*training.job.mesh.world, checkpoint, training.job.model->parameters().list(),
                                      states_of(training));
  training.optimizer->set_updates(training.progress.updates);
  if (training.spikes) training.spikes->set_level(training.progress.loss_level);
}

MetricsBefore resume_training(Training& training, const std::string& wish,
                              const std::vector<std::string>& allowed_changes, const Log& log) {
  Communicator& world = *training.job.mesh.world;
  const fs::path folder = checkpoint_folder(training.job.configuration.run);
  const auto candidates = candidates_for(wish, list_checkpoints(world, folder), folder, log);
  for (const fs::path& candidate : candidates) {
    try {
      const CheckpointSummary summary = summarize_checkpoint(world, candidate);
      const auto changes = changes_since(summary, training.job);
      // Before the first sample their order does not matter.
      require_match(changes, allowed_changes, summary.progress.samples > 0, candidate);
      require_steps_left(training.job, summary.progress, candidate);
      load_training(training, candidate);
      training.validation_loss = summary.notes.validation_loss;
      log.info("resumed from " + candidate.string() + " at step " + std::to_string(training.progress.step));
      if (!changes.empty()) log.info(told(changes));
    } catch (const AgreedError& error) {
      const bool of_the_checkpoint = error.exit_code() == CheckpointError("").exit_code();
      if (!of_the_checkpoint || wish != "auto" || candidate == candidates.back()) throw;
      log.warn("warning: " + std::string(error.what()) + "; trying an older checkpoint");
      continue;
    }
    return enter_branch(training, candidate, folder, log);
  }
  return MetricsBefore::Same;
}

fs::path restore_weights(Job& job, const std::string& checkpoint, const std::vector<std::string>& allowed_changes) {
  if (checkpoint == "none") return "a new model";
  Communicator& world = *job.mesh.world;
  fs::path path = checkpoint;
  if (path.empty()) {
    const fs::path folder = checkpoint_folder(job.configuration.run);
    const CheckpointList list = list_checkpoints(world, folder);
    if (list.checkpoints.empty()) {
      throw AgreedError(
          CheckpointError(folder.string() + ": holds no checkpoint" +
                          (list.passed_over.empty() ? "" : " that can be used: " + list.passed_over.front()) +
                          "; train first, or name one with --checkpoint"));
    }
    for (const std::string& reason : list.passed_over) print_warning(job, "passed over: " + reason);  // before errors
    path = list.checkpoints.front();
  }
  const auto changes = changes_since(summarize_checkpoint(world, path), job);
  require_match(changes, allowed_changes, /*order_matters=*/false, path);
  const std::string line = told(of_evaluation(changes));
  if (!line.empty()) job.warnings.push_back(line);
  if (std::any_of(changes.begin(), changes.end(), [](const auto& change) { return change.key == "data"; })) {
    job.warnings.push_back("the data to train on are not those of " + path.string() +
                           ": what is held out here may have been trained on");
  }
  const ParameterSet& parameters = job.model->parameters();
  load_checkpoint(world, path, parameters.list(), {{"", parameters.values()}}, optimizer_prefix);
  return path;
}

}  // namespace longnet
