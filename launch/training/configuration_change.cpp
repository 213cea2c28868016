#include "launch/training/configuration_change.h"

#include <algorithm>
#include <sstream>

#include "core/error.h"

namespace longnet {
namespace {

using Json = nlohmann::ordered_json;

void compare(const std::string& path, const Json& before, const Json& now, std::vector<ConfigurationChange>& changes) {
  if (before == now) return;
  if (!before.is_object() || !now.is_object()) {
    changes.push_back({path, before, now, effect_of(path)});
    return;
  }
  const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  const auto value = [](const Json& map, const std::string& key) { return map.contains(key) ? map[key] : Json(); };
  for (const auto& [key, present] : now.items()) compare(below(key), value(before, key), present, changes);
  for (const auto& [key, old] : before.items()) {
    if (!now.contains(key)) compare(below(key), old, Json(), changes);
  }
}

std::string shown(const Json& value) {
  return value.is_null() ? "none" : value.dump();
}

[[noreturn]] void refuse_unless_allowed(const ConfigurationChange& change, const std::string& checkpoint) {
  std::ostringstream text;
  if (change.key == "data") {
    text << "the data are not those of ";
  } else {
    text << change.key << " is " << shown(change.now) << ", not " << shown(change.before) << " as in ";
  }
  text << checkpoint << ": "
       << (change.effect == KeyEffect::Tokens ? "tokens may not mean the same"
                                              : "samples would come twice or not at all")
       << "; --allow-change " << change.key << " goes on all the same";
  throw ConfigError(text.str());
}

bool is_dropout(const std::string& key) {
  return key.ends_with(".dropout") || key.ends_with("_dropout");
}

}  // namespace

KeyEffect effect_of(const std::string& key) {
  if (key.starts_with("model.") && !is_dropout(key)) return KeyEffect::Function;
  if (key == "data.type") return KeyEffect::Tokens;
  for (const char* order : {"data", "data.sequence_length", "training.seed"}) {
    if (key == order) return KeyEffect::SampleOrder;
  }
  return KeyEffect::Training;
}

std::string ConfigurationChange::text() const {
  if (key == "data" || key == "held-out data") return key + " (other files, or another part of them)";
  return key + " " + shown(before) + " -> " + shown(now);
}

std::vector<ConfigurationChange> changes_between(const Json& before, const Json& now) {
  std::vector<ConfigurationChange> changes;
  compare("", before, now, changes);
  std::erase_if(changes, [](const ConfigurationChange& change) { return change.key == "run"; });
  return changes;
}

void require_compatible(const std::vector<ConfigurationChange>& changes, const std::vector<std::string>& allowed,
                        bool training, const std::string& checkpoint) {
  for (const std::string& key : allowed) {
    const KeyEffect effect = effect_of(key);
    if (effect == KeyEffect::Tokens || effect == KeyEffect::SampleOrder) continue;
    throw ConfigError(
        "--allow-change " + key +
        (effect == KeyEffect::Function
             ? ": the weights were trained with it, and mean nothing without"
             : ": needs no allowance; it goes with data, data.type, data.sequence_length and training.seed"));
  }
  for (const ConfigurationChange& change : changes) {
    if (change.effect == KeyEffect::Training || (change.effect == KeyEffect::SampleOrder && !training)) continue;
    if (std::find(allowed.begin(), allowed.end(), change.key) != allowed.end()) continue;
    if (change.effect == KeyEffect::Function) {
      throw ConfigError(change.key + " is " + shown(change.now) + ", but the weights of " + checkpoint +
                        " were trained with " + shown(change.before) + "; set it back, or train anew (--set run=...)");
    }
    refuse_unless_allowed(change, checkpoint);
  }
}

}  // namespace longnet
