#include "distributed/checkpoint_manifest.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/files/input_file.h"
#include "core/files/safetensors.h"
#include "core/files/strict_json.h"

namespace longnet {
namespace {

using Json = nlohmann::json;  // finds a name among many quickly, which the ordered kind does not

constexpr const char* format = "longnet-checkpoint";
constexpr int version = 2;
constexpr std::size_t hex_digits = 32;

std::string digest_text(const std::string& text) {
  return digest_of(std::as_bytes(std::span(text))).xxh3_128;
}

/// What stands behind the text whose digest is `digest`, up to the end of the file.
std::string ending(const std::string& digest) {
  return ",\n \"xxh3_128\": \"" + digest + "\"\n}\n";
}

/// Throws unless the digest at the end is that of what is before it.
void require_digest(const std::string& text) {
  const std::size_t length = ending(std::string(hex_digits, '0')).size();
  const std::string before = text.substr(0, text.size() - std::min(length, text.size()));
  if (text != before + ending(digest_text(before))) {
    throw CheckpointError(
        "is damaged, or no manifest of this version of longnet: its last lines do not hold the digest of the rest");
  }
}

// What a JSON object must hold. `where` names the object in messages.

[[noreturn]] void refuse(const std::string& where, const std::string& key, const Json& value, const char* expected) {
  throw CheckpointError((where.empty() ? "" : where + ": ") + key + " is " + value.dump() + ", not " + expected);
}

const Json& member(const Json& object, const std::string& where, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) throw CheckpointError((where.empty() ? "" : where + ": ") + "there is no " + key);
  return *found;
}

const Json& object_in(const Json& object, const std::string& where, const char* key) {
  const Json& value = member(object, where, key);
  if (!value.is_object()) refuse(where, key, value, "an object");
  return value;
}

std::string text_in(const Json& object, const std::string& where, const char* key) {
  const Json& value = member(object, where, key);
  if (!value.is_string()) refuse(where, key, value, "a text");
  return value;
}

std::uint64_t unsigned_in(const Json& object, const std::string& where, const char* key) {
  const Json& value = member(object, where, key);
  if (!value.is_number_unsigned()) refuse(where, key, value, "a count");
  return value;
}

/// Small enough to be added to and multiplied with one of 2^10.
std::int64_t as_count(const Json& value, const std::string& where, const char* key) {
  constexpr std::uint64_t most = std::uint64_t{1} << 52U;
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most) refuse(where, key, value, "a count");
  return value;
}

std::int64_t count_in(const Json& object, const std::string& where, const char* key) {
  return as_count(member(object, where, key), where, key);
}

/// Nothing where there is no such member: older versions wrote none.
std::optional<double> number_in(const Json& object, const std::string& where, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return {};
  if (!found->is_number() || !std::isfinite(found->get<double>())) refuse(where, key, *found, "a number");
  return found->get<double>();
}

FileDigest digest_in(const Json& files, const std::string& name) {
  const std::string where = "files: " + name;
  const bool in_folder = name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
                         name.find('\0') != std::string::npos;
  if (in_folder) throw CheckpointError(where + " is no name of a file");
  const Json& entry = object_in(files, "files", name.c_str());
  const std::string digest = text_in(entry, where, "xxh3_128");
  if (digest.size() != hex_digits || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(where, "xxh3_128", digest, "a digest");
  }
  return {unsigned_in(entry, where, "bytes"), digest};
}

/// How many elements a tensor of this shape has.
std::int64_t elements(const std::vector<std::int64_t>& shape, const std::string& where) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(product, size, &product)) throw CheckpointError(where + ": the shape is too large");
  }
  return product;
}

StoredTensor tensor_in(const Json& tensors, const std::string& name, const std::map<std::string, FileDigest>& files) {
  const std::string where = "the tensor " + name;
  const Json& entry = object_in(tensors, "tensors", name.c_str());
  StoredTensor tensor{scalar_type(text_in(entry, where, "dtype")), {}, {}};
  const Json& shape = member(entry, where, "shape");
  if (!shape.is_array()) refuse(where, "shape", shape, "a list");
  for (const Json& size : shape) tensor.shape.push_back(as_count(size, where, "shape"));

  const Json& ranges = member(entry, where, "ranges");
  if (!ranges.is_array()) refuse(where, "ranges", ranges, "a list");
  std::int64_t covered = 0;
  for (const Json& range : ranges) {
    if (!range.is_object()) refuse(where, "a range", range, "an object");
    StoredPart part{text_in(range, where, "file"),
                    text_in(range, where, "key"),
                    {count_in(range, where, "begin"), count_in(range, where, "end")}};
    if (!files.contains(part.file)) throw CheckpointError(where + ": lies in " + part.file + ", which is not listed");
    if (part.range.begin != covered || part.range.end < covered)
      throw CheckpointError(where + ": its ranges do not fit together");
    covered = part.range.end;
    tensor.parts.push_back(std::move(part));
  }
  if (covered != elements(tensor.shape, where)) throw CheckpointError(where + ": its ranges are not the whole of it");
  return tensor;
}

/// None where there is no such member.
LossLevel loss_level_in(const Json& json) {
  if (!json.contains("loss_level")) return {};
  const Json& entry = object_in(json, "", "loss_level");
  for (const char* key : {"mean", "variance"}) member(entry, "loss_level", key);
  const LossLevel level{*number_in(entry, "loss_level", "mean"), *number_in(entry, "loss_level", "variance"),
                        count_in(entry, "loss_level", "steps")};
  if (level.variance < 0) refuse("loss_level", "variance", entry["variance"], "at least 0");
  return level;
}

CheckpointNotes notes_in(const Json& json) {
  const Json& mesh = object_in(json, "", "mesh");
  CheckpointNotes notes{unsigned_in(json, "", "seed"),
                        count_in(mesh, "mesh", "data"),
                        count_in(mesh, "mesh", "sequence"),
                        text_in(json, "", "program"),
                        object_in(json, "", "config"),
                        {},
                        {},
                        number_in(json, "", "validation_loss")};
  for (const char* section : {"model", "data", "training"}) object_in(notes.config, "config", section);
  const Json& data = object_in(json, "", "data");
  notes.train_data = text_in(data, "data", "train");
  notes.validation_data = text_in(data, "data", "validation");
  return notes;
}

Manifest manifest_in(const Json& json) {
  if (text_in(json, "", "format") != format) refuse("", "format", json["format"], format);
  if (member(json, "", "version") != version) refuse("", "version", json["version"], std::to_string(version).c_str());
  Manifest manifest{{count_in(json, "", "step"), count_in(json, "", "tokens"), count_in(json, "", "samples"),
                     count_in(json, "", "updates"), loss_level_in(json)},
                    notes_in(json),
                    {},
                    {}};
  if (manifest.progress.updates > manifest.progress.step) refuse("", "updates", json["updates"], "at most the step");
  const Json& files = object_in(json, "", "files");
  for (const auto& [name, entry] : files.items()) manifest.files.emplace(name, digest_in(files, name));
  const Json& tensors = object_in(json, "", "tensors");
  for (const auto& [name, entry] : tensors.items())
    manifest.tensors.emplace(name, tensor_in(tensors, name, manifest.files));
  if (files.empty() || tensors.empty()) throw CheckpointError("there are no files or no tensors");
  return manifest;
}

}  // namespace

std::string to_text(const Manifest& manifest) {
  const auto& [progress, notes, files, tensors] = manifest;
  nlohmann::ordered_json json{{"format", format},
                              {"version", version},
                              {"step", progress.step},
                              {"tokens", progress.tokens},
                              {"samples", progress.samples},
                              {"updates", progress.updates},
                              {"seed", notes.seed},
                              {"mesh", {{"data", notes.data_ranks}, {"sequence", notes.sequence_ranks}}},
                              {"program", notes.program},
                              {"config", notes.config},
                              {"data", {{"train", notes.train_data}, {"validation", notes.validation_data}}}};
  if (progress.loss_level.steps > 0) {
    const LossLevel& level = progress.loss_level;
    json["loss_level"] = {{"mean", level.mean}, {"variance", level.variance}, {"steps", level.steps}};
  }
  if (notes.validation_loss) json["validation_loss"] = *notes.validation_loss;
  for (const auto& [name, digest] : files)
    json["files"][name] = {{"bytes", digest.bytes}, {"xxh3_128", digest.xxh3_128}};
  nlohmann::ordered_json& index = json["tensors"];
  for (const auto& [name, tensor] : tensors) {
    Json ranges = Json::array();
    for (const StoredPart& part : tensor.parts) {
      ranges.push_back({{"file", part.file}, {"key", part.key}, {"begin", part.range.begin}, {"end", part.range.end}});
    }
    index[name] = {{"dtype", safetensors_dtype(tensor.dtype)}, {"shape", tensor.shape}, {"ranges", std::move(ranges)}};
  }
  std::string text = json.dump(1);
  text.resize(text.size() - std::string("\n}").size());
  return text + ending(digest_text(text));
}

Manifest parse_manifest(const std::string& text) {
  require_digest(text);
  const Json json = parse_json(text);
  if (!json.is_object()) throw CheckpointError("is no JSON object");
  return manifest_in(json);
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "manifest.json";
  if (!std::filesystem::exists(path))
    throw CheckpointError(folder.string() + ": no manifest.json of a longnet checkpoint");
  const InputFile file(path);
  constexpr std::uint64_t longest = std::uint64_t{256} << 20;  // a thousand ranks write a fraction of it
  if (file.size() > longest) throw CheckpointError(path.string() + ": is larger than any manifest");
  try {
    return parse_manifest(file.beginning(static_cast<std::size_t>(file.size())));
  } catch (const Error& error) {
    throw CheckpointError(path.string() + ": " + error.what());
  }
}

}  // namespace longnet
