#include "distributed/sharded_checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>

#include "core/error.h"
#include "core/files/hashing_file.h"
#include "core/files/safetensors.h"
#include "core/range.h"
#include "core/seconds_since.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/flat_parts.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

std::string shard_name(int rank, int ranks) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "shard-%05d-of-%05d.safetensors", rank, ranks);
  return text.data();
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

std::int64_t count_of(const std::vector<Parameter>& parameters) {
  std::int64_t count = 0;
  for (const Parameter& parameter : parameters) count += parameter.value.numel();
  return count;
}

/// `flat` without what lies outside `range`; it begins with the element `begin`.
at::Tensor cut(const at::Tensor& flat, Range range, std::int64_t begin) {
  return flat.slice(0, range.begin - begin, range.end - begin);
}

/// What rank `rank` of `ranks` stores of a flat tensor: its part, cut at the parameters' borders.
std::vector<StoredRange> stored_ranges(const std::vector<Parameter>& parameters, int rank, int ranks) {
  const Range own = equal_part(count_of(parameters), rank, ranks);
  std::vector<StoredRange> result;
  std::int64_t begin = 0;
  for (const Parameter& parameter : parameters) {
    const std::int64_t end = begin + parameter.value.numel();
    const Range in_flat = overlap({begin, end}, own);
    if (in_flat.size() > 0) result.push_back({&parameter, {in_flat.begin - begin, in_flat.end - begin}, in_flat});
    begin = end;
  }
  return result;
}

/// `part` itself on the CPU; a copy of it where the CPU reads it at its leisure, while the device goes on.
at::Tensor readable_beside_training(const at::Tensor& part) {
  if (part.is_cpu()) return part;
  return at::empty(part.sizes(), part.options().device(at::kCPU).pinned_memory(true)).copy_(part);
}

/// What rank `rank` of `ranks` stores of the states.
std::vector<NamedTensor> shard_of(const std::vector<Parameter>& parameters, const std::vector<FlatState>& states,
                                  int rank, int ranks) {
  std::vector<NamedTensor> tensors;
  const Range own = equal_part(count_of(parameters), rank, ranks);
  for (const FlatState& state : states) {
    const std::int64_t begin = state.held == FlatState::Held::Whole ? 0 : own.begin;
    for (const StoredRange& range : stored_ranges(parameters, rank, ranks)) {
      auto part = readable_beside_training(cut(state.flat, range.in_flat, begin));
      if (range.whole()) part = part.view(range.parameter->value.sizes());
      tensors.emplace_back(range.key(state.prefix), part);
    }
  }
  return tensors;
}

/// Where all ranks' shards hold the states.
std::map<std::string, StoredTensor> stored_tensors(const std::vector<Parameter>& parameters,
                                                   const std::vector<FlatState>& states, int ranks) {
  std::map<std::string, StoredTensor> tensors;
  for (int rank = 0; rank < ranks; ++rank) {
    for (const StoredRange& range : stored_ranges(parameters, rank, ranks)) {
      for (const FlatState& state : states) {
        StoredTensor& tensor = tensors[state.prefix + range.parameter->name];
        tensor.dtype = state.flat.scalar_type();
        tensor.shape = range.parameter->value.sizes().vec();
        tensor.parts.push_back({shard_name(rank, ranks), range.key(state.prefix), range.within});
      }
    }
  }
  return tensors;
}

/// The digests of all ranks' shards, in rank order.
std::vector<FileDigest> gather_digests(Communicator& world, const FileDigest& mine) {
  std::vector<FileDigest> digests;
  for (const std::string& text : gather_text(world, mine.xxh3_128 + std::to_string(mine.bytes))) {
    const std::size_t hex_digits = mine.xxh3_128.size();
    digests.push_back({std::stoull(text.substr(hex_digits)), text.substr(0, hex_digits)});
  }
  return digests;
}

void write_manifest(const fs::path& partial, Manifest manifest, const std::vector<FileDigest>& digests) {
  const int ranks = static_cast<int>(digests.size());
  for (int rank = 0; rank < ranks; ++rank) {
    manifest.files.emplace(shard_name(rank, ranks), digests[static_cast<std::size_t>(rank)]);
  }
  HashingFile file(partial / "manifest.json");
  file.write(to_text(manifest));
  file.commit();
  synchronize_folder(partial);
}

/// A disk that is nearly full is better left so: metrics need room, too.
void require_room(const fs::path& folder, const Manifest& manifest, const std::vector<Parameter>& parameters,
                  const std::vector<FlatState>& states) {
  std::uintmax_t bytes = 2 * to_text(manifest).size();  // the shards' headers say about the same again
  for (const FlatState& state : states) {
    bytes += static_cast<std::uintmax_t>(count_of(parameters)) * state.flat.element_size();
  }
  const std::uintmax_t available = fs::space(folder).available;
  if (available >= bytes) return;
  throw CheckpointError(folder.parent_path().string() + ": a checkpoint takes " + std::to_string(bytes) +
                        " bytes, but " + std::to_string(available) + " are free");
}

/// A name that no other run has, in this or another container.
std::string run_name(Communicator& world) {
  std::random_device random;
  return broadcast_text(world, std::to_string((std::uint64_t{random()} << 32U) | random()), 0);
}

/// Rank 0 reads the manifest, all get the same.
Manifest shared_manifest(Communicator& world, const fs::path& checkpoint) {
  std::string text;
  agree_on_files(world, [&] {
    if (world.rank() == 0) text = to_text(read_manifest(checkpoint));
  });
  return parse_manifest(broadcast_text(world, text, 0));
}

/// Which rank reads a file for all: every byte is read once, whatever the number of ranks.
class Readers {
 public:
  Readers(const Manifest& manifest, int ranks) {
    int number = 0;
    for (const auto& [name, digest] : manifest.files) readers_[name] = number++ % ranks;
  }
  int of(const std::string& file) const { return readers_.at(file); }

 private:
  std::map<std::string, int> readers_;
};

/// Throws unless every tensor of the model is in the checkpoint, with its shape and dtype, and none is left over.
void require_fitting(const fs::path& checkpoint, const Manifest& manifest, const std::vector<Parameter>& parameters,
                     const std::vector<FlatState>& states, const std::string& unwanted) {
  std::set<std::string> wanted;
  for (const FlatState& state : states) {
    for (const Parameter& parameter : parameters) {
      const std::string name = *wanted.insert(state.prefix + parameter.name).first;
      const std::string where = checkpoint.string() + ": the tensor " + name;
      const auto found = manifest.tensors.find(name);
      if (found == manifest.tensors.end()) {
        throw CheckpointError(where + " is missing; the checkpoint belongs to another model");
      }
      const at::IntArrayRef stored = found->second.shape, needed = parameter.value.sizes();
      if (stored != needed) {
        throw CheckpointError(c10::str(where, " has the shape ", stored, ", but the model's is ", needed));
      }
      if (found->second.dtype == state.flat.scalar_type()) continue;
      throw ConfigError(where + " is " + safetensors_dtype(found->second.dtype) + ", but the model's is " +
                        safetensors_dtype(state.flat.scalar_type()) + ": set training.precision as it was");
    }
  }
  for (const auto& [name, tensor] : manifest.tensors) {
    if (wanted.contains(name) || (!unwanted.empty() && name.starts_with(unwanted))) continue;
    throw CheckpointError(checkpoint.string() + ": the tensor " + name +
                          " has no place; the checkpoint belongs to another model");
  }
}

/// A range of a flat tensor that a file holds.
struct Piece {
  Range range;
  const StoredPart* part;
};

/// Neighbouring pieces of a state that one rank reads.
struct Run {
  const FlatState* state;
  int reader;
  Range range;
  std::vector<Piece> pieces;
  at::Tensor values;  ///< of the range, on its reader and wherever the whole state is held
};

/// All parts of the states, in the order of the flat tensors.
std::vector<Run> runs_of(const Manifest& manifest, const Readers& readers, const std::vector<Parameter>& parameters,
                         const std::vector<FlatState>& states) {
  std::vector<Run> runs;
  for (const FlatState& state : states) {
    std::int64_t begin = 0;
    for (const Parameter& parameter : parameters) {
      const StoredTensor& tensor = manifest.tensors.at(state.prefix + parameter.name);
      for (const StoredPart& part : tensor.parts) {
        const Range range{begin + part.range.begin, begin + part.range.end};
        const int reader = readers.of(part.file);
        const bool goes_on = !runs.empty() && runs.back().state == &state && runs.back().reader == reader;
        if (!goes_on) runs.push_back({&state, reader, {range.begin, range.begin}, {}, {}});
        runs.back().range.end = range.end;  // the manifest's parts tile each tensor
        runs.back().pieces.push_back({range, &part});
      }
      begin += parameter.value.numel();
    }
  }
  return runs;
}

/// Finds memory for what this rank reads and gets: that of the state, but for what it reads for others.
void find_memory(std::vector<Run>& runs, Range own, int rank) {
  for (Run& run : runs) {
    const at::Tensor& flat = run.state->flat;
    if (run.state->held == FlatState::Held::Whole) {
      run.values = cut(flat, run.range, 0);
    } else if (run.reader == rank) {
      const bool all_mine = overlap(run.range, own) == run.range;
      run.values = all_mine ? cut(flat, run.range, own.begin) : at::empty({run.range.size()}, flat.options());
    }
  }
}

/// Where what a file holds is to go, by its name there.
using Destinations = std::map<std::string, std::vector<at::Tensor>>;

Destinations destinations_in(const std::vector<Run>& runs, const std::string& file, int rank) {
  Destinations destinations;
  for (const Run& run : runs) {
    if (run.reader != rank) continue;
    for (const Piece& piece : run.pieces) {
      if (piece.part->file != file) continue;
      destinations[piece.part->key].push_back(cut(run.values, piece.range, run.range.begin));
    }
  }
  return destinations;
}

/// Reads a file into its destinations; throws unless it is what `expected` says.
void read_file(const fs::path& path, const FileDigest& expected, const Destinations& destinations) {
  const CheckpointError damaged(path.string() + ": damaged, its content is not what the manifest says");
  if (InputFile(path).size() != expected.bytes) throw CheckpointError(damaged);
  const SafetensorsFile file(path);
  at::Tensor host;  // of the tensor that is read
  std::size_t found = 0;
  const auto place = [&](const std::string& key) {
    const auto wanted = destinations.find(key);
    if (wanted == destinations.end()) return at::Tensor();
    const at::Tensor& first = wanted->second.front();
    host = first.is_cpu() ? first : at::empty(first.sizes(), first.options().device(at::kCPU));
    return host;
  };
  const auto done = [&](const std::string& key) {
    ++found;
    for (const at::Tensor& destination : destinations.at(key)) {
      if (!destination.is_same(host)) destination.copy_(host);
    }
  };
  if (file.read_through(place, done) != expected) throw CheckpointError(damaged);
  if (found != destinations.size()) throw CheckpointError(path.string() + ": lacks tensors that the manifest names");
}

/// Reads the files that are this rank's to read.
void read_files(const fs::path& checkpoint, const Manifest& manifest, const Readers& readers,
                const std::vector<Run>& runs, int rank) {
  for (const auto& [name, digest] : manifest.files) {
    if (readers.of(name) == rank) read_file(checkpoint / name, digest, destinations_in(runs, name, rank));
  }
}

/// Sends what a rank has read for others to whose parts it belongs to.
std::unique_ptr<Work> share_by_parts(Communicator& world, const Run& run, std::int64_t count) {
  std::vector<Message> sends, receives;
  for (int rank = 0; rank < world.size(); ++rank) {
    const Range part = equal_part(count, rank, world.size()), theirs = overlap(run.range, part);
    if (theirs.size() == 0) continue;
    const bool mine = rank == world.rank(), read_here = run.reader == world.rank();
    if (mine && read_here) cut(run.state->flat, theirs, part.begin).copy_(cut(run.values, theirs, run.range.begin));
    if (mine && !read_here) receives.push_back({run.reader, cut(run.state->flat, theirs, part.begin)});
    if (!mine && read_here) sends.push_back({rank, cut(run.values, theirs, run.range.begin)});
  }
  return world.exchange(std::move(sends), std::move(receives));
}

/// Sends every run from the rank that has read it to those that hold it.
void share_runs(Communicator& world, const std::vector<Run>& runs, std::int64_t count) {
  std::vector<std::unique_ptr<Work>> sends;
  for (const Run& run : runs) {
    const bool whole = run.state->held == FlatState::Held::Whole;
    sends.push_back(whole ? world.broadcast(run.values, run.reader) : share_by_parts(world, run, count));
  }
  for (const auto& send : sends) send->wait();
}

/// Of what all ranks hold.
std::string digest_of(const std::vector<FlatState>& states) {
  std::string digests;
  for (const FlatState& state : states) {
    if (state.held != FlatState::Held::Whole) continue;
    const auto flat = state.flat.to(at::kCPU).contiguous();
    digests +=
        longnet::digest_of(std::span(static_cast<const std::byte*>(flat.const_data_ptr()), flat.nbytes())).xxh3_128;
  }
  return digests;
}

/// Throws unless all ranks have got the same.
void compare_states(Communicator& world, const fs::path& checkpoint, const std::vector<FlatState>& states) {
  const auto digests = gather_text(world, digest_of(states));
  const auto other =
      std::find_if(digests.begin(), digests.end(), [&](const auto& digest) { return digest != digests[0]; });
  if (other == digests.end()) return;
  throw AgreedError(
      CheckpointError(checkpoint.string() + ": ranks 0 and " + std::to_string(other - digests.begin()) +
                      " have read different values of it; their file systems do not show the same files"));
}

}  // namespace

CheckpointSave::CheckpointSave(Communicator& world, const fs::path& folder, const TrainingProgress& progress,
                               const CheckpointNotes& notes, const std::vector<Parameter>& parameters,
                               const std::vector<FlatState>& states)
    : world_(world),
      folder_(folder),
      partial_(partial_folder(folder, progress.step, run_name(world))),
      manifest_{progress, notes, {}, stored_tensors(parameters, states, world.size())} {
  agree_or_discard([&] {
    if (world.rank() != 0) return;
    fs::create_directories(partial_);
    require_room(partial_, manifest_, parameters, states);
  });
  agree_or_discard([&] {
    const fs::path path = partial_ / shard_name(world.rank(), world.size());
    auto shard = shard_of(parameters, states, world.rank(), world.size());
    written_ = std::async(std::launch::async, [path, shard = std::move(shard)] {
      const auto begin = std::chrono::steady_clock::now();
      const FileDigest digest = write_safetensors(path, shard);
      return Written{digest, seconds_since(begin)};
    });
  });
}

void CheckpointSave::agree_or_discard(const std::function<void()>& work) {
  try {
    agree_on_files(world_, work);
  } catch (const AgreedError&) {
    std::error_code ignored;
    if (world_.rank() == 0) fs::remove_all(partial_, ignored);
    throw;
  }
}

Publication CheckpointSave::finish(Lineage lineage, const Retention& retention) {
  FileDigest mine{0, std::string(32, '0')};
  agree_or_discard([&] {
    const Written written = written_.get();
    mine = written.digest;
    cost_.seconds = written.seconds;
  });
  const auto digests = gather_digests(world_, mine);
  for (const FileDigest& shard : digests) cost_.bytes += shard.bytes;
  Publication changes;
  agree_or_discard([&] {
    if (world_.rank() != 0) return;
    write_manifest(partial_, manifest_, digests);
    changes = publish_checkpoint(partial_, folder_, manifest_.progress.step, lineage, retention);
  });
  return changes;
}

CheckpointSummary summarize_checkpoint(Communicator& world, const fs::path& path) {
  const Manifest manifest = shared_manifest(world, path);
  return {manifest.progress, manifest.notes};
}

TrainingProgress load_checkpoint(Communicator& world, const fs::path& path, const std::vector<Parameter>& parameters,
                                 const std::vector<FlatState>& states, const std::string& unwanted) {
  const Manifest manifest = shared_manifest(world, path);
  const Readers readers(manifest, world.size());
  agree_on_files(world, [&] { require_fitting(path, manifest, parameters, states, unwanted); });
  auto runs = runs_of(manifest, readers, parameters, states);
  const std::int64_t count = count_of(parameters);
  find_memory(runs, own_part(world, count), world.rank());
  try {
    agree_on_files(world, [&] { read_files(path, manifest, readers, runs, world.rank()); });
    share_runs(world, runs, count);
    compare_states(world, path, states);
  } catch (const AgreedError&) {
    for (const FlatState& state : states) state.flat.fill_(NAN);
    throw;
  }
  return manifest.progress;
}

}  // namespace longnet
