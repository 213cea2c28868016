#include "launch/training/resume.h"

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/sharded_checkpoint.h"
#include "launch/job/version.h"
#include "launch/output/run_folder.h"
#include "launch/training/configuration_change.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

/// What a checkpoint of a training run holds.
std::vector<FlatState> states_of(const Training& training) {
  std::vector<FlatState> states{{"", training.job.model->parameters().values()}};
  for (const auto& [name, flat] : training.optimizer->states()) states.push_back({"optimizer." + name + ".", flat});
  return states;
}

nlohmann::ordered_json digests(const Data& data) {
  if (!data.train) return {};
  return {{"train", data.train_digest}, {"validation", data.validation_digest}};
}

/// Also compares the data, where both sides have some.
std::vector<ConfigurationChange> changes_since(const CheckpointSummary& checkpoint, const Job& job) {
  auto changes = changes_between(checkpoint.config, job.resolved);
  const auto now = digests(job.data);
  if (!checkpoint.data.is_object() || !now.is_object() || checkpoint.progress.samples == 0) return changes;
  if (checkpoint.data.value("train", nlohmann::ordered_json()) != now["train"]) {
    changes.push_back(
        {"data", checkpoint.data.value("train", nlohmann::ordered_json()), now["train"], KeyEffect::SampleOrder});
  }
  return changes;
}

void tell_changes(const std::vector<ConfigurationChange>& changes, const Log& log) {
  std::string line;
  for (const ConfigurationChange& change : changes) line += (line.empty() ? "" : "; ") + change.text();
  if (!line.empty()) log.info("changed since the checkpoint: " + line);
}

/// Compares a checkpoint's configuration with the job's. Before the first sample its order does not matter.
std::vector<ConfigurationChange> compared(Job& job, const fs::path& checkpoint, const std::vector<std::string>& allowed,
                                          bool training) {
  const CheckpointSummary summary = summarize_checkpoint(*job.mesh.world, checkpoint);
  auto changes = changes_since(summary, job);
  try {
    require_compatible(changes, allowed, training && summary.progress.samples > 0, checkpoint.string());
  } catch (const ConfigError& error) {
    throw AgreedError(error);  // all ranks compare the same
  }
  return changes;
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

bool is_in(const fs::path& checkpoint, const fs::path& folder) {
  std::error_code error;
  const bool same = fs::equivalent(fs::absolute(checkpoint).lexically_normal().parent_path(), folder, error);
  return same && !error;
}

/// Makes what lies beyond the checkpoint stop counting.
bool leave_other_branch(Training& training, const fs::path& checkpoint, const fs::path& folder, const Log& log) {
  Communicator& world = *training.job.mesh.world;
  // Only the first rank looks.
  const bool own = broadcast_text(world, world.rank() == 0 && is_in(checkpoint, folder) ? "own" : "", 0) == "own";
  const auto moved = set_aside_after(world, folder, own ? training.progress.step : -1);
  for (const fs::path& path : moved) {
    log.warn("set aside, because the training goes on from step " + std::to_string(training.progress.step) + ": " +
             path.string());
  }
  return !moved.empty();
}

}  // namespace

Training begin_training(Job& job) {
  return {job, make_optimizer(job.configuration.optimizer, job.model->parameters()), {}};
}

void save_training(const Training& training) {
  const Job& job = training.job;
  const Configuration& config = job.configuration;
  TrainingProgress progress = training.progress;
  progress.updates = training.optimizer->updates();
  save_checkpoint(*job.mesh.world, checkpoint_folder(config.run), progress,
                  {static_cast<std::uint64_t>(config.training.seed), job.mesh.data_size, job.mesh.sequence->size(),
                   version, job.resolved, digests(job.data)},
                  job.model->parameters().list(), states_of(training), config.checkpoint.keep);
}

void load_training(Training& training, const fs::path& checkpoint) {
  training.progress = load_checkpoint(*training.job.mesh.world, checkpoint, training.job.model->parameters().list(),
                                      states_of(training));
  training.optimizer->set_updates(training.progress.updates);
}

bool resume_training(Training& training, const std::string& wish, const std::vector<std::string>& allowed_changes,
                     const Log& log) {
  Communicator& world = *training.job.mesh.world;
  const fs::path folder = checkpoint_folder(training.job.configuration.run);
  const auto candidates = candidates_for(wish, list_checkpoints(world, folder), folder, log);
  for (const fs::path& candidate : candidates) {
    const auto changes = compared(training.job, candidate, allowed_changes, /*training=*/true);
    try {
      load_training(training, candidate);
    } catch (const AgreedError& error) {
      if (wish != "auto" || candidate == candidates.back()) throw;
      log.warn("warning: " + std::string(error.what()) + "; trying an older checkpoint");
      continue;
    }
    log.info("resumed from " + candidate.string() + " at step " + std::to_string(training.progress.step));
    tell_changes(changes, log);
    return leave_other_branch(training, candidate, folder, log);
  }
  return false;
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
    path = list.checkpoints.front();
  }
  compared(job, path, allowed_changes, /*training=*/false);
  const ParameterSet& parameters = job.model->parameters();
  load_checkpoint(world, path, parameters.list(), {{"", parameters.values()}});
  return path;
}

}  // namespace longnet
