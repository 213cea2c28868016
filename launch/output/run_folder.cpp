#include "launch/output/run_folder.h"

#include <algorithm>
#include <fstream>
#include <optional>

#include "core/configuration/configuration.h"
#include "core/files/event_records.h"
#include "core/files/free_name.h"
#include "core/files/hashing_file.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

/// The step of a line, if it is one of metrics.jsonl.
std::optional<std::int64_t> step_of(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) return {};
  return json["step"].get<std::int64_t>();
}

/// Where the lines up to `step` end; nothing when the file cannot be read to there. A last line that a crash cut short does not
/// count; a damaged one before it stays.
std::optional<std::uint64_t> end_of_lines(const fs::path& path, std::int64_t step) {
  std::ifstream in(path, std::ios::binary);
  std::uint64_t end = 0;
  for (std::string line; std::getline(in, line);) {
    const auto number = step_of(line);
    if (number.value_or(0) > step || (in.eof() && !number)) break;
    end += line.size() + (in.eof() ? 0 : 1);
  }
  if (!in.is_open() || in.bad()) return {};
  return end;
}

/// Cuts what is beyond `step`. Takes no room on the disk, so that it works on a full one.
void cut_metrics(const fs::path& path, std::int64_t step, const Log& log) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return;  // there is none yet
  const auto end = end_of_lines(path, step);
  if (!end) {
    log.warn("warning: " + path.string() + ": cannot be read; lines beyond step " + std::to_string(step) +
             " stay in it");
    return;
  }
  if (*end < size) fs::resize_file(path, *end, error);
  if (error)
    log.warn("warning: " + path.string() + ": lines beyond step " + std::to_string(step) +
             " stay in it: " + error.message());
}

/// Gives metrics.jsonl a name that no later run takes; says so. Where that is not to be had, it stays.
fs::path put_metrics_aside(const fs::path& path, const std::string& why, const Log& log) {
  fs::path aside = free_name(path.parent_path() / ("metrics.abandoned" + why), ".jsonl");
  std::error_code error;
  fs::rename(path, aside, error);
  if (error) {
    log.warn("warning: " + path.string() + ": still begins with the steps that were left: " + error.message());
    return {};
  }
  log.info("metrics of the steps that were left: " + aside.string());
  return aside;
}

/// Tells of lines that are missing, and of lines that are none of metrics.
void tell_of_gaps(const fs::path& path, std::int64_t step, const Log& log) {
  std::ifstream in(path, std::ios::binary);
  std::int64_t last = 0, foreign = 0;
  for (std::string line; std::getline(in, line);) {
    const auto number = step_of(line);
    last = std::max(last, number.value_or(last));
    foreign += number ? 0 : 1;
  }
  if (in.bad()) return;  // it was said
  if (last < step) {
    log.warn("warning: " + path.string() + ": lacks the lines of steps " + std::to_string(last + 1) + " to " +
             std::to_string(step));
  }
  if (foreign > 0) log.warn("warning: " + path.string() + ": " + std::to_string(foreign) + " lines are no metrics");
}

/// Leaves in metrics.jsonl what belongs to the training that goes on after `step`.
void prepare_metrics(const fs::path& path, std::int64_t step, MetricsBefore before, const Log& log) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (before == MetricsBefore::Same && step > 0 && (error || size == 0)) return tell_of_gaps(path, step, log);
  if (error || size == 0) return;  // there are none yet
  // Without a checkpoint, these are of steps that are lost, or of checkpoints that somebody has moved away.
  if (before == MetricsBefore::OfAnotherBranch || step == 0) {
    put_metrics_aside(path, "", log);
    return;
  }
  const auto end = before == MetricsBefore::SameUpToHere ? end_of_lines(path, step) : std::nullopt;
  if (end && *end < size) {
    fs::path aside = put_metrics_aside(path, "-after-step-" + std::to_string(step), log);
    if (!aside.empty()) fs::copy_file(aside, path, error);
    if (error) {
      log.warn("warning: " + path.string() + ": begins after step " + std::to_string(step) + ": " + error.message());
    }
  }
  cut_metrics(path, step, log);
  tell_of_gaps(path, step, log);
}

/// Writes beside and renames, so that what is there is whole, the old or the new.
void write_configuration(const fs::path& path, const nlohmann::ordered_json& resolved, const Log& log) {
  const fs::path partial = path.string() + ".partial";
  try {
    HashingFile file(partial);
    file.write(to_yaml(resolved));
    file.commit();
    fs::rename(partial, path);
  } catch (const std::exception& error) {
    log.warn("warning: " + std::string(error.what()) + "; " + path.string() + " stays as it was");
    std::error_code ignored;
    fs::remove(partial, ignored);
  }
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, const nlohmann::ordered_json& resolved, bool tensorboard,
                     std::int64_t step, MetricsBefore before, const Log& log)
    : folder_(folder),
      resolved_(resolved),
      log_(log),
      metrics_(folder / "metrics.jsonl", [log](const std::string& line) { log.warn(line); }) {
  begin_anew();
  prepare_metrics(folder / "metrics.jsonl", step, before, log);
  if (!tensorboard) return;
  events_ =
      std::make_unique<RetryingFile>(folder / event_file_name(), [log](const std::string& line) { log.warn(line); });
  events_->write(first_event_record());
}

void RunFolder::begin_anew() const {
  write_configuration(folder_ / "config.yaml", resolved_, log_);
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
                                    {"skipped", m.skipped},
                                    {"spike", m.spike},
                                    {"saves", m.saves},
                                    {"failed_saves", m.failed_saves},
                                    {"saved_bytes", m.saved_bytes},
                                    {"save_seconds_written", m.save_seconds_written},
                                    {"save_seconds_waited", m.save_seconds_waited}};
  metrics_.write(line.dump() + "\n");  // non-finite numbers are written as null
  write_events(m.step, {{"loss", m.loss},
                        {"gradient_norm", m.gradient_norm},
                        {"learning_rate", m.learning_rate},
                        {"tokens_per_second", m.tokens_per_second},
                        {"peak_memory_bytes", static_cast<double>(m.peak_memory_bytes)}});
}

void RunFolder::write_evaluation(std::int64_t step, double loss) {
  write_events(step, {{"validation_loss", loss}});
}

void RunFolder::write_events(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  if (events_) events_->write(scalars_record(step, scalars));
}

}  // namespace longnet
