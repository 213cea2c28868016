#include "distributed/checkpoint_folder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/files/free_name.h"
#include "core/files/hashing_file.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_manifest.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view prefix = "step-";
constexpr const char* abandoned = "abandoned-";
constexpr const char* partial_mark = ".partial-";

/// The step that the name of a checkpoint tells.
std::optional<std::int64_t> step_of_name(const fs::path& path) {
  const std::string name = path.filename().string();
  constexpr std::size_t fewest_digits = 8;
  if (!name.starts_with(prefix) || name.size() < prefix.size() + fewest_digits) return {};
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return {};
  return step;
}

/// Looks at a folder, without its manifests: the steps of what is named as a checkpoint, highest first.
std::vector<std::pair<std::int64_t, fs::path>> numbered_folders(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (const auto step = step_of_name(entry.path())) found.emplace_back(*step, entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

/// A sound checkpoint.
struct Found {
  fs::path path;
  CheckpointRecord record;
  std::string evaluated_on;  ///< losses that were measured on other data are not compared
};

std::string evaluation_of(const CheckpointNotes& notes) {
  std::string text = notes.validation_data;
  for (const auto& [section, key] :
       {std::pair("training", "evaluation_sequences"), std::pair("data", "sequence_length")}) {
    const auto& keys = notes.config.at(section);
    text.push_back(' ');
    if (keys.contains(key)) text.append(keys.at(key).dump());
  }
  return text;
}

/// Those of a folder, newest first. Adds to `passed_over` what looks like one and is none.
std::vector<Found> sound_checkpoints(const fs::path& folder, std::vector<std::string>& passed_over) {
  std::vector<Found> found;
  for (const auto& [step, path] : numbered_folders(folder)) {
    try {
      const Manifest manifest = read_manifest(path);
      const std::int64_t written = manifest.progress.step;
      if (written != step)
        throw CheckpointError(path.string() + ": is the checkpoint of step " + std::to_string(written));
      found.push_back({path, {step, manifest.notes.validation_loss}, evaluation_of(manifest.notes)});
    } catch (const Error& error) {
      passed_over.emplace_back(error.what());
    }
  }
  return found;
}

CheckpointList look_into(const fs::path& folder) {
  CheckpointList list;
  for (const Found& found : sound_checkpoints(folder, list.passed_over)) list.checkpoints.push_back(found.path);
  if (!fs::exists(folder)) return list;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.filename().string().starts_with(abandoned)) {
      list.set_aside.push_back(path);
    } else if (!step_of_name(path) && fs::exists(path / "manifest.json")) {
      list.passed_over.push_back(path.string() + ": has a manifest, but not the name of a checkpoint (step-00000150)");
    }
  }
  return list;
}

/// A folder that is half removed when the power goes is no checkpoint any more.
void remove_checkpoint(const fs::path& path) {
  const fs::path leaving = free_name(path.string() + partial_mark + "removed");
  fs::rename(path, leaving);
  fs::remove_all(leaving);
}

/// Removes `replaced`, if any, and the checkpoints up to `step` that `retention` does not keep. Returns what could not be removed,
/// each with the reason.
std::vector<std::string> remove_superseded(const fs::path& folder, const fs::path& replaced, std::int64_t step,
                                           const Retention& retention) {
  std::vector<std::string> failures;
  const auto attempt = [&](const auto& removal) {
    try {
      removal();
    } catch (const fs::filesystem_error& error) {
      failures.push_back(error.path1().string() + " cannot be removed: " + error.code().message());
    } catch (const std::exception& error) {
      failures.push_back("older ones cannot be removed: " + std::string(error.what()));
    }
  };
  if (!replaced.empty()) attempt([&] { fs::remove_all(replaced); });
  std::vector<std::string> passed_over;  // they stay
  std::vector<Found> found;
  attempt([&] { found = sound_checkpoints(folder, passed_over); });
  std::erase_if(found, [&](const Found& one) { return one.record.step > step; });
  std::vector<CheckpointRecord> records;
  records.reserve(found.size());
  for (const Found& one : found) {
    records.push_back(one.record);
    if (one.evaluated_on != found.front().evaluated_on) records.back().validation_loss.reset();
  }
  const std::set<std::int64_t> leaving = superseded(records, retention);
  for (const Found& one : found) {
    if (leaving.contains(one.record.step)) attempt([&] { remove_checkpoint(one.path); });
  }
  return failures;
}

/// Sets aside the checkpoints beyond `step`.
std::vector<fs::path> set_aside(const fs::path& folder, std::int64_t step) {
  std::vector<fs::path> moved;
  for (const auto& [number, path] : numbered_folders(folder)) {
    if (number <= step) continue;
    moved.push_back(free_name(folder / (abandoned + path.filename().string())));
    fs::rename(path, moved.back());
  }
  if (!moved.empty()) synchronize_folder(folder);
  return moved;
}

/// What rank 0 has, on all ranks.
Json shared(Communicator& world, const Json& value) {
  return Json::parse(broadcast_text(world, value.dump(), 0));
}

std::vector<std::string> as_texts(const std::vector<fs::path>& paths) {
  return {paths.begin(), paths.end()};
}

template <class Text>
std::vector<Text> texts_of(const Json& list) {
  std::vector<Text> texts;
  texts.reserve(list.size());
  for (const Json& text : list) texts.emplace_back(text.get<std::string>());
  return texts;
}

}  // namespace

std::string checkpoint_name(std::int64_t step) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "step-%08lld", static_cast<long long>(step));
  return text.data();
}

void agree_on_files(Communicator& world, const std::function<void()>& work) {
  agree(world, [&] {
    try {
      work();
    } catch (const ConfigError&) {
      throw;
    } catch (const Error& error) {  // it names the file
      throw CheckpointError(error.what());
    } catch (const fs::filesystem_error& error) {
      throw CheckpointError(error.path1().string() + ": " + error.code().message());
    }
  });
}

CheckpointList list_checkpoints(Communicator& world, const fs::path& folder) {
  CheckpointList list;
  agree_on_files(world, [&] {
    if (world.rank() == 0) list = look_into(folder);
  });
  const Json all = shared(world, Json::array({as_texts(list.checkpoints), list.passed_over, as_texts(list.set_aside)}));
  return {texts_of<fs::path>(all[0]), texts_of<std::string>(all[1]), texts_of<fs::path>(all[2])};
}

bool is_in_force(Communicator& world, const fs::path& checkpoint, const fs::path& folder) {
  bool in_force = false;
  agree_on_files(world, [&] {
    if (world.rank() != 0 || !fs::exists(folder)) return;
    const fs::path real = fs::canonical(checkpoint);
    in_force = step_of_name(real) && real.parent_path() == fs::canonical(folder);
  });
  return shared(world, in_force).get<bool>();
}

std::vector<fs::path> set_aside_after(Communicator& world, const fs::path& folder, std::int64_t step) {
  std::vector<fs::path> moved;
  agree_on_files(world, [&] {
    if (world.rank() == 0) moved = set_aside(folder, step);
  });
  return texts_of<fs::path>(shared(world, as_texts(moved)));
}

Publication publish_checkpoint(const fs::path& partial, const fs::path& folder, std::int64_t step, Lineage lineage,
                               const Retention& retention) {
  Publication changes;
  if (lineage == Lineage::New) changes.set_aside = set_aside(folder, -1);
  const fs::path target = folder / checkpoint_name(step);
  const fs::path replaced = free_name(target.string() + partial_mark + "replaced");
  const bool replaces = fs::exists(target);
  if (replaces) fs::rename(target, replaced);  // an unusable or equal one
  fs::rename(partial, target);
  synchronize_folder(folder);

  changes.not_removed = std::async(std::launch::async, remove_superseded, folder, replaced, step, retention);
  return changes;
}

std::vector<std::string> make_room(Communicator& world, const fs::path& folder, std::int64_t step,
                                   const Retention& retention) {
  std::vector<std::string> not_removed;
  agree_on_files(world, [&] {
    if (world.rank() == 0) not_removed = remove_superseded(folder, {}, step, retention);
  });
  return not_removed;
}

std::set<std::int64_t> superseded(const std::vector<CheckpointRecord>& checkpoints, const Retention& retention) {
  std::vector<CheckpointRecord> evaluated;
  for (const CheckpointRecord& one : checkpoints) {
    if (one.validation_loss) evaluated.push_back(one);
  }
  std::stable_sort(evaluated.begin(), evaluated.end(),
                   [](const auto& one, const auto& other) { return *one.validation_loss < *other.validation_loss; });
  std::set<std::int64_t> best;
  for (const CheckpointRecord& one : evaluated) {
    if (std::ssize(best) < retention.best) best.insert(one.step);
  }
  std::set<std::int64_t> result;
  std::int64_t newest = 0;
  for (const auto& [step, loss] : checkpoints) {
    const bool is_multiple = retention.every_steps > 0 && step % retention.every_steps == 0;
    if (++newest > retention.newest && !is_multiple && !best.contains(step)) result.insert(step);
  }
  return result;
}

fs::path partial_folder(const fs::path& folder, std::int64_t step, const std::string& run) {
  return folder / (checkpoint_name(step) + partial_mark + run);
}

std::vector<fs::path> remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.find(partial_mark) != std::string::npos) found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove_all(path);
  return found;
}

}  // namespace longnet
