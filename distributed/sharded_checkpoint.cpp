#include "distributed/sharded_checkpoint.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <map>

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
  std::ifstream file(checkpoint / "manifest.json");
  Json manifest = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (manifest.is_discarded() || manifest.value("format", "") != "longnet-checkpoint" ||
      manifest.value("version", 0) != 1) {
    throw CheckpointError(checkpoint.string() + ": no manifest.json of a longnet checkpoint, version 1");
  }
  return manifest;
}

void remove_old_checkpoints(const fs::path& folder, std::int64_t keep) {
  const auto checkpoints = list_checkpoints(folder);
  for (std::size_t i = static_cast<std::size_t>(keep); i < checkpoints.size(); ++i) fs::remove_all(checkpoints[i]);
}

/// Compares this rank's share of the files with the manifest.
void verify_files(const fs::path& checkpoint, const Json& manifest, int rank, int ranks) {
  int number = 0;
  for (const auto& [name, digest] : manifest.at("files").items()) {
    if (number++ % ranks != rank) continue;
    const MappedFile file(checkpoint / name);
    const FileDigest expected{digest.at("bytes"), digest.at("xxh3_128")};
    if (digest_of(file.bytes()) != expected) {
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
  } catch (const std::exception& error) {  // DataError, std::filesystem::filesystem_error
    throw CheckpointError(checkpoint.string() + ": " + error.what());
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
                    {"seed", notes.seed},
                    {"mesh", {{"data", notes.data_ranks}, {"sequence", notes.sequence_ranks}}},
                    {"program", notes.program},
                    {"config", notes.config}};
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
      remove_old_checkpoints(folder, keep);
    });
  });
}

std::vector<fs::path> list_checkpoints(const fs::path& folder) {
  std::vector<fs::path> checkpoints;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const bool named =
        name.size() == 13 && name.starts_with("step-") && name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (!named) continue;
    try {
      read_manifest(entry.path());
    } catch (const CheckpointError&) {
      continue;
    }
    checkpoints.push_back(entry.path());
  }
  std::sort(checkpoints.rbegin(), checkpoints.rend());
  return checkpoints;
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
      progress = {manifest.at("step"), manifest.at("tokens"), manifest.at("samples")};
      read_states(path, manifest, parameters, states);
    });
  });
  return progress;
}

}  // namespace longnet
