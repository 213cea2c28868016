#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "launch/output/log.h"
#include "launch/output/retrying_file.h"

namespace longnet {

/// One line of metrics.jsonl.
struct StepMetrics {
  std::int64_t step;
  double loss;
  double gradient_norm;
  double learning_rate;
  std::int64_t tokens;  ///< since the beginning of the run
  double seconds;       ///< of this step
  double tokens_per_second;
  std::int64_t peak_memory_bytes;
  std::int64_t exchange_bytes;
  bool skipped, spike;
  // Of saves, since the program started.
  std::int64_t saves, failed_saves;
  std::uint64_t saved_bytes;
  double save_seconds_written, save_seconds_waited;
};

/// What the lines are that a run folder's metrics.jsonl holds when a training goes on in it.
enum class MetricsBefore {
  Same,             ///< of this training; those beyond its step will be made again
  SameUpToHere,     ///< of this training up to its step, then of a branch that was left
  OfAnotherBranch,  ///< of a branch that was left
};

/// The folder of a run, written by rank 0: config.yaml, metrics.jsonl, events.out.tfevents.*, checkpoints/. None of these
/// files ends the training when it cannot be written: it is said, and made up for as soon as that works.
class RunFolder {
 public:
  /// Opens the folder to go on after `step` completed steps. Lines of metrics.jsonl beyond it are cut off in place; where
  /// there are some of a branch that was left, the whole file is kept under another name.
  RunFolder(const std::filesystem::path& folder, const nlohmann::ordered_json& resolved, bool tensorboard,
            std::int64_t step, MetricsBefore before, const Log& log);

  /// Puts config.yaml into a folder that was made anew.
  void begin_anew() const;

  void write(const StepMetrics& metrics);
  void write_evaluation(std::int64_t step, double loss);

 private:
  void write_events(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

  std::filesystem::path folder_;
  nlohmann::ordered_json resolved_;
  Log log_;
  RetryingFile metrics_;
  std::unique_ptr<RetryingFile> events_;  ///< null without TensorBoard
};

inline std::filesystem::path checkpoint_folder(const std::string& run) {
  return std::filesystem::path(run) / "checkpoints";
}

}  // namespace longnet
