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
  bool skipped;
};

/// The folder of a run, written by rank 0: config.yaml, metrics.jsonl, events.out.tfevents.*, checkpoints/. None of these
/// files ends the training when it cannot be written: it is said, and made up for as soon as that works.
class RunFolder {
 public:
  /// Opens the folder to go on after `step` completed steps. Lines of metrics.jsonl beyond it are of steps that will be
  /// made again: they are cut off in place. `rolled_back`: they are of a branch that was left, and the whole file is put
  /// aside first.
  RunFolder(const std::filesystem::path& folder, const nlohmann::ordered_json& resolved, bool tensorboard,
            std::int64_t step, bool rolled_back, const Log& log);

  void write(const StepMetrics& metrics);
  void write_evaluation(std::int64_t step, double loss);

 private:
  void write_events(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

  RetryingFile metrics_;
  std::unique_ptr<RetryingFile> events_;  ///< null without TensorBoard
};

inline std::filesystem::path checkpoint_folder(const std::string& run) {
  return std::filesystem::path(run) / "checkpoints";
}

}  // namespace longnet
