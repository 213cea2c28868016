#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "core/configuration/configuration.h"
#include "core/files/event_file.h"

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

/// The folder of a run, written by rank 0: config.yaml, metrics.jsonl, events.out.tfevents.*, checkpoints/.
class RunFolder {
 public:
  /// Opens the folder to go on after `step` completed steps: later lines of metrics.jsonl are cut. Throws Error when
  /// the folder cannot be written.
  RunFolder(const std::filesystem::path& folder, const nlohmann::ordered_json& resolved, bool tensorboard,
            std::int64_t step);

  void write(const StepMetrics& metrics);
  void write_evaluation(std::int64_t step, double loss);

 private:
  std::ofstream metrics_;
  std::optional<EventFile> events_;
};

inline std::filesystem::path checkpoint_folder(const std::string& run) {
  return std::filesystem::path(run) / "checkpoints";
}

}  // namespace longnet
