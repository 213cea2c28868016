#include "distributed/sharded_checkpoint.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>

#include "core/error.h"
#include "core/files/safetensors.h"
#include "core/range.h"
#include "distributed/agreement.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string numbered(const char* format, long long first, long long second = 0) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), format, first, second);
  return text.data();
}

std::string shard_name(int rank, int ranks) {
  return numbered("shard-%05lld-of-%05lld.safetensors", rank, ranks);
}

/// A flat range of one parameter that one rank stores.
struct StoredRange {
  const Parameter* parameter;
  Range within;   ///< of the parameter's own elements
  Range in_flat;  ///< of the flat tensor

  bool whole() const { return within.size() == parameter->value.numel(); }
  std::string key(const std::string& prefix) const {
    const std::string name = prefix + parameter->name;
    return whole() ? name : name + "[" + std::to_string(within.begin) + ":" + std::to_string(within.end) + "]";
  }
};

/// What rank `rank` of `ranks` stores of a flat tensor: one of equal parts, cut at the parameters' borders.
std::vector<StoredRange> stored_ranges(const std::vector<Parameter>& parameters, int rank, int ranks) {
  std::int64_t total = 0;
  for (const Parameter& parameter : parameters) total += parameter.value.numel();
  const Range own{total / ranks * rank + total % ranks * rank / ranks,
                  total / ranks * (rank + 1) + total % ranks * (rank + 1) / ranks};
  std::vector<StoredRange> result;
  std::int64_t begin = 0;
  for (const Parameter& parameter : parameters) {
    const std::int64_t end = begin + parameter.value.numel();
    const Range in_flat{std::max(begin, own.begin), std::min(end, own.end)};
    if (in_flat.size() > 0) result.push_back({&parameter, {in_flat.begin - begin, in_flat.end - begin}, in_flat});
    begin = end;
  }
  return result;
}

FileDigest write_shard(const fs::path& path, const std::vector<Parameter>& parameters,
                       const std::vector<FlatState>& states, int rank, int ranks) {
  std::vector<NamedTensor> tensors;
  for (const FlatState& state : states) {
    for (const StoredRange& range : stored_ranges(parameters, rank, ranks)) {
      auto part = state.flat.slice(0, range.in_flat.begin, range.in_flat.end).to(at::kCPU);
      if (range.whole()) part = part.view(range.parameter->value.sizes());
      tensors.emplace_back(range.key(state.prefix), part);
    }
  }
  return write_safetensors(path, tensors);
}

Json tensor_index(const std::vector<Parameter>& parameters, const std::vector<FlatState>& states, int ranks) {
  Json index = Json::object();
  for (const FlatState& state : states) {
    for (int rank = 0; rank < ranks; ++rank) {
      for (const StoredRange& range : stored_ranges(parameters, rank, ranks)) {
        Json& entry = index[state.prefix + range.parameter->name];
        entry["dtype"] = safetensors_dtype(state.flat.scalar_type());
        entry["shape"] = range.parameter->value.sizes().vec();
        entry["ranges"].push_back({{"file", shard_name(rank, ranks)},
                                   {"key", range.key(state.prefix)},
                                   {"begin", range.within.begin},
                                   {"end", range.within.end}});
      }
    }
  }
  return index;
}

/// The digests of all ranks' shards, in rank order.
std::vector<FileDigest> gather_digests(Communicator& world, const FileDigest& mine) {
  constexpr std::int64_t hex_digits = 32;
  auto sizes = at::empty({world.size()}, at::kLong);
  world.all_gather(sizes, at::full({1}, static_cast<std::int64_t>(mine.bytes), at::kLong))->wait();
  auto hashes = at::empty({world.size(), hex_digits}, at::kByte), own = at::empty({hex_digits}, at::kByte);
  std::copy(mine.xxh3_128.begin(), mine.xxh3_128.end(), own.data_ptr<std::uint8_t>());
  world.all_gather(hashes, own)->wait();
  std::vector<FileDigest> digests;
  for (std::int64_t rank = 0; rank < world.size(); ++rank) {
    const auto* digits = reinterpret_cast<const char*>(hashes[rank].data_ptr());
    digests.push_back({static_cast<std::uint64_t>(sizes[rank].item<std::int64_t>()), std::string(digits, hex_digits)});
  }
  return digests;
}

Json read_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "manifest.json";
  if (!fs::exists(path)) throw CheckpointError(checkpoint.string() + ": no manifest.json of a longnet checkpoint");
  const InputFile file(path);
  const Json manifest =
      Json::parse(file.beginning(static_cast<std::size_t>(file.size())), nullptr, /*allow_exceptions=*/false);
  const bool ours = manifest.is_object() && manifest.value("format", Json()) == "longnet-checkpoint";
  if (!ours) throw CheckpointError(path.string() + ": is damaged, or not a manifest of longnet");
  if (manifest.value("version", Json()) != 1) {
    throw CheckpointError(path.string() + ": has the version " + manifest.value("version", Json()).dump() + ", not 1");
  }
  return manifest;
}

std::int64_t whole_number(const Json& manifest, const char* key) {
  const Json& value = manifest.at(key);
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    throw CheckpointError(std::string("the manifest's ") + key + " is " + value.dump() + ", no count");
  }
  return value.get<std::int64_t>();
}

TrainingProgress progress_of(const Json& manifest) {
  TrainingProgress progress{whole_number(manifest, "step"), whole_number(manifest, "tokens"),
                            whole_number(manifest, "samples"), 0};
  // Before it was counted, skipped steps counted, too.
  progress.updates = manifest.contains("updates") ? whole_number(manifest, "updates") : progress.step;
  return progress;
}

/// The step that a folder's name tells, behind `prefix`.
std::optional<std::int64_t> step_of_name(const fs::path& path, const std::string& prefix) {
  const std::string name = path.filename().string();
  constexpr std::size_t fewest_digits = 8;
  if (!name.starts_with(prefix) || name.size() < prefix.size() + fewest_digits) return {};
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return {};
  return step;
}

constexpr const char* abandoned = "abandoned-";

/// Looks at a folder, without its manifests: the steps of what is named as a checkpoint, highest first.
std::vector<std::pair<std::int64_t, fs::path>> numbered_folders(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (const auto step = step_of_name(entry.path(), "step-")) found.emplace_back(*step, entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

CheckpointList look_into(const fs::path& folder) {
  CheckpointList list;
  for (const auto& [step, path] : numbered_folders(folder)) {
    try {
      read_manifest(path);
      list.checkpoints.push_back(path);
    } catch (const Error& error) {
      list.passed_over.emplace_back(error.what());
    }
  }
  if (!fs::exists(folder)) return list;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(abandoned)) list.set_aside.push_back(entry.path());
  }
  return list;
}

/// Keeps the checkpoint of `step` and the newest before it, `keep` in all.
void remove_old_checkpoints(const fs::path& folder, std::int64_t step, std::int64_t keep) {
  std::int64_t kept = 0;
  for (const fs::path& path : look_into(folder).checkpoints) {
    if (step_of_name(path, "step-").value_or(0) <= step && ++kept > keep) fs::remove_all(path);
  }
}

/// Compares this rank's share of the files with the manifest.
void verify_files(const fs::path& checkpoint, const Json& manifest, int rank, int ranks) {
  int number = 0;
  for (const auto& [name, digest] : manifest.at("files").items()) {
    if (number++ % ranks != rank) continue;
    const FileDigest expected{digest.at("bytes"), digest.at("xxh3_128")};
    if (digest_of(InputFile(checkpoint / name)) != expected) {
      throw CheckpointError((checkpoint / name).string() + ": damaged, its content is not what the manifest says");
    }
  }
}

/// Copies one stored tensor into its place of a flat tensor.
void read_tensor(const fs::path& checkpoint, const Json& manifest, const std::string& name, const at::Tensor& into,
                 at::IntArrayRef shape, std::map<std::string, SafetensorsFile>& files) {
  const auto fail = [&](const std::string& what) {
    throw CheckpointError(checkpoint.string() + ": the tensor " + name + " " + what);
  };
  const auto& tensors = manifest.at("tensors");
  if (!tensors.contains(name)) fail("is missing; the checkpoint belongs to another model");
  const Json& entry = tensors.at(name);
  if (entry.at("shape").get<std::vector<std::int64_t>>() != shape.vec()) {
    fail("has the shape " + entry.at("shape").dump() + ", but the model's is " + Json(shape.vec()).dump());
  }
  if (scalar_type(entry.at("dtype")) != into.scalar_type()) {
    fail("is " + entry.at("dtype").dump() + ", but the model's is \"" + safetensors_dtype(into.scalar_type()) +
         "\": set training.precision as it was");
  }
  std::int64_t covered = 0;
  for (const Json& range : entry.at("ranges")) {
    const std::string file = range.at("file");
    const auto found = files.try_emplace(file, checkpoint / file).first;
    const std::int64_t begin = range.at("begin"), end = range.at("end");
    const auto part = found->second.read(range.at("key")).flatten();
    if (begin != covered || part.numel() != end - begin || end > into.numel())
      fail("has ranges that do not fit together");
    into.slice(0, begin, end).copy_(part);
    covered = end;
  }
  if (covered != into.numel()) fail("is not complete");
}

void read_states(const fs::path& checkpoint, const Json& manifest, const std::vector<Parameter>& parameters,
                 const std::vector<FlatState>& states) {
  std::map<std::string, SafetensorsFile> files;
  for (const FlatState& state : states) {
    std::int64_t begin = 0;
    for (const Parameter& parameter : parameters) {
      const std::int64_t end = begin + parameter.value.numel();
      read_tensor(checkpoint, manifest, state.prefix + parameter.name, state.flat.slice(0, begin, end),
                  parameter.value.sizes(), files);
      begin = end;
    }
  }
}

/// Runs `work`; what goes wrong with files and JSON inside is a CheckpointError.
void as_checkpoint_error(const fs::path& checkpoint, const auto& work) {
  try {
    work();
  } catch (const CheckpointError&) {
    throw;
  } catch (const Json::exception& error) {
    throw CheckpointError(checkpoint.string() + ": the manifest cannot be used: " + error.what());
  } catch (const Error& error) {  // of a file, which it names
    throw CheckpointError(error.what());
  } catch (const fs::filesystem_error& error) {
    throw CheckpointError(error.path1().string() + ": " + error.code().message());
  }
}

}  // namespace

void save_checkpoint(Communicator& world, const fs::path& folder, const TrainingProgress& progress,
                     const CheckpointNotes& notes, const std::vector<Parameter>& parameters,
                     const std::vector<FlatState>& states, std::int64_t keep) {
  const std::string name = numbered("step-%08lld", progress.step);
  auto run_id = at::full({1}, static_cast<std::int64_t>(::getpid()), at::kLong);
  world.broadcast(run_id, 0)->wait();
  const fs::path target = folder / name;
  const fs::path partial = folder / (name + ".partial-" + std::to_string(run_id.item<std::int64_t>()));
  const bool first = world.rank() == 0;

  agree(world, [&] {
    if (first) as_checkpoint_error(target, [&] { fs::create_directories(partial); });
  });
  FileDigest mine{0, std::string(32, '0')};
  agree(world, [&] {
    as_checkpoint_error(target, [&] {
      mine =
          write_shard(partial / shard_name(world.rank(), world.size()), parameters, states, world.rank(), world.size());
    });
  });
  const auto digests = gather_digests(world, mine);
  agree(world, [&] {
    if (!first) return;
    as_checkpoint_error(target, [&] {
      Json manifest{{"format", "longnet-checkpoint"},
                    {"version", 1},
                    {"step", progress.step},
                    {"tokens", progress.tokens},
                    {"samples", progress.samples},
                    {"updates", progress.updates},
                    {"seed", notes.seed},
                    {"mesh", {{"data", notes.data_ranks}, {"sequence", notes.sequence_ranks}}},
                    {"program", notes.program},
                    {"config", notes.config},
                    {"data", notes.data}};
      for (int rank = 0; rank < world.size(); ++rank) {
        const FileDigest& digest = digests[static_cast<std::size_t>(rank)];
        manifest["files"][shard_name(rank, world.size())] = {{"bytes", digest.bytes}, {"xxh3_128", digest.xxh3_128}};
      }
      manifest["tensors"] = tensor_index(parameters, states, world.size());
      HashingFile file(partial / "manifest.json");
      file.write(manifest.dump(1) + "\n");
      file.commit();
      synchronize_folder(partial);
      fs::remove_all(target);  // only an unusable or equal one can be there
      fs::rename(partial, target);
      synchronize_folder(folder);
      remove_old_checkpoints(folder, progress.step, keep);
    });
  });
}

CheckpointList list_checkpoints(Communicator& world, const fs::path& folder) {
  CheckpointList list;
  agree(world, [&] {
    if (world.rank() == 0) as_checkpoint_error(folder, [&] { list = look_into(folder); });
  });
  const auto share = [&](auto& entries) {
    const std::vector<std::string> texts(entries.begin(), entries.end());
    entries.clear();
    const Json shared = Json::parse(broadcast_text(world, Json(texts).dump(), 0));
    entries.reserve(shared.size());
    for (const auto& text : shared) {
      entries.emplace_back(text.template get<std::string>());
    }
  };
  share(list.checkpoints);
  share(list.passed_over);
  share(list.set_aside);
  return list;
}

std::vector<fs::path> set_aside_after(Communicator& world, const fs::path& folder, std::int64_t step) {
  std::vector<std::string> moved;
  agree(world, [&] {
    if (world.rank() != 0) return;
    as_checkpoint_error(folder, [&] {
      for (const auto& [number, path] : numbered_folders(folder)) {
        if (number <= step) continue;
        const fs::path name = folder / (abandoned + path.filename().string());
        fs::path aside = name;
        for (int copy = 2; fs::exists(aside); ++copy) aside = name.string() + "-" + std::to_string(copy);
        fs::rename(path, aside);
        moved.push_back(aside.string());
      }
      if (!moved.empty()) synchronize_folder(folder);
    });
  });
  std::vector<fs::path> result;
  for (const auto& text : Json::parse(broadcast_text(world, Json(moved).dump(), 0))) {
    result.emplace_back(text.get<std::string>());
  }
  return result;
}

CheckpointSummary summarize_checkpoint(Communicator& world, const fs::path& path) {
  std::string text;
  agree(world, [&] {
    if (world.rank() != 0) return;
    as_checkpoint_error(path, [&] {
      Json summary = read_manifest(path);
      progress_of(summary);
      for (const char* large : {"files", "tensors"}) summary.erase(large);
      text = summary.dump();
    });
  });
  const Json summary = Json::parse(broadcast_text(world, text, 0));
  return {progress_of(summary), summary.value("config", Json()), summary.value("data", Json())};
}

TrainingProgress load_checkpoint(Communicator& world, const fs::path& path, const std::vector<Parameter>& parameters,
                                 const std::vector<FlatState>& states) {
  TrainingProgress progress;
  Json manifest;
  agree(world, [&] {
    as_checkpoint_error(path, [&] {
      manifest = read_manifest(path);
      verify_files(path, manifest, world.rank(), world.size());
    });
  });
  agree(world, [&] {
    as_checkpoint_error(path, [&] {
      progress = progress_of(manifest);
      read_states(path, manifest, parameters, states);
    });
  });
  return progress;
}

}  // namespace longnet
