#include "launch/output/run_folder.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

/// Keeps the lines up to `step`: what comes after belongs to steps that will be made again.
void cut_metrics(const fs::path& path, std::int64_t step) {
  std::vector<std::string> kept;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded() || json.value("step", step + 1) > step) break;
    kept.push_back(line);
  }
  const fs::path partial = path.string() + ".partial";
  {
    std::ofstream out(partial);
    for (const auto& line : kept) out << line << '\n';
  }
  fs::rename(partial, path);
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, const nlohmann::ordered_json& resolved, bool tensorboard,
                     std::int64_t step) {
  try {
    fs::create_directories(folder / "checkpoints");
    std::ofstream(folder / "config.yaml") << to_yaml(resolved);
    cut_metrics(folder / "metrics.jsonl", step);
  } catch (const fs::filesystem_error& error) {
    throw Error(folder.string() + ": cannot be written: " + error.code().message());
  }
  metrics_.open(folder / "metrics.jsonl", std::ios::app);
  if (!metrics_) throw Error((folder / "metrics.jsonl").string() + ": cannot be written");
  if (tensorboard) events_.emplace(folder);
}

void RunFolder::write(const StepMetrics& m) {
  const nlohmann::ordered_json line{{"step", m.step},
                                    {"loss", m.loss},
                                    {"gradient_norm", m.gradient_norm},
                                    {"learning_rate", m.learning_rate},
                                    {"tokens", m.tokens},
                                    {"seconds", m.seconds},
                                    {"tokens_per_second", m.tokens_per_second},
                                    {"peak_memory_bytes", m.peak_memory_bytes},
                                    {"exchange_bytes", m.exchange_bytes},
                                    {"skipped", m.skipped}};
  metrics_ << line.dump() << std::endl;  // non-finite numbers are written as null
  if (!events_) return;
  events_->write(m.step, {{"loss", m.loss},
                          {"gradient_norm", m.gradient_norm},
                          {"learning_rate", m.learning_rate},
                          {"tokens_per_second", m.tokens_per_second},
                          {"peak_memory_bytes", static_cast<double>(m.peak_memory_bytes)}});
}

void RunFolder::write_evaluation(std::int64_t step, double loss) {
  if (events_) events_->write(step, {{"validation_loss", loss}});
}

}  // namespace longnet
