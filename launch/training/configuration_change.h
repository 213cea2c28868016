#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// What has changed between the configuration of a checkpoint and the present one, and what may.
namespace longnet {

/// What a key of the configuration decides.
enum class KeyEffect {
  Function,     ///< what the weights compute: must stay
  Tokens,       ///< what the tokens mean (data.type): changes only if the user says so
  SampleOrder,  ///< which sequences come when: changes only if the user says so, and only training cares
  Training,     ///< how it is trained, where and on what: may change
};

/// `key` is a path, as model.heads; the content of the data is the key `data`, that of
/// those to evaluate with `held-out data`. All keys of the model decide its function
/// but dropouts.
KeyEffect effect_of(const std::string& key);

struct ConfigurationChange {
  std::string key;
  nlohmann::ordered_json before, now;  ///< null where the key is not there
  KeyEffect effect;

  std::string text() const;  ///< "model.heads 4 -> 8"
};

/// The keys whose values differ between two resolved configurations, in the order of the present one. `run` is no such
/// key.
std::vector<ConfigurationChange> changes_between(const nlohmann::ordered_json& before,
                                                 const nlohmann::ordered_json& now);

/// Throws ConfigError for the first change that cannot be: one of the function, or one of tokens or (where `training`)
/// of the order of samples that is not among `allowed`. `checkpoint` names the checkpoint. Also for an allowed key that
/// needs no allowance or cannot have one.
void require_compatible(const std::vector<ConfigurationChange>& changes, const std::vector<std::string>& allowed,
                        bool training, const std::string& checkpoint);

}  // namespace longnet
