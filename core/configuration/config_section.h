#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/configuration/config_node.h"

/// How a section of the configuration becomes a struct, and back. A section is described once, as a function template
///
///     template <typename Fields>
///     void describe(Fields& field, Struct& value) {
///       field("key", value.member, between(1, limits::layers));
///     }
///
/// that ConfigReader and ConfigWriter run through. A member's first value is the key's default.
namespace longnet {

/// What a number may be.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_excluded = false;
  bool high_excluded = false;
};
inline Bounds at_least(double low) {
  return {low, std::numeric_limits<double>::infinity()};
}
inline Bounds between(double low, double high) {
  return {low, high};
}
inline Bounds above(double low) {
  return {low, std::numeric_limits<double>::infinity(), true};
}
inline Bounds from_zero_to_below(double high) {
  return {0, high, false, true};
}

/// For a text or a list: the key may be left out, but not given without anything in it.
struct NotEmpty {};
constexpr NotEmpty not_empty;

/// The names of an enumeration's values in the configuration. A specialization has
/// `static constexpr std::array<std::pair<const char*, Enum>, n> names`.
template <typename Enum>
struct ConfigNames;

template <typename T>
concept ConfigEnum = requires {
  ConfigNames<T>::names;
};

/// What a value is called in the configuration.
template <ConfigEnum Enum>
std::string config_name(Enum value) {
  for (const auto& [name, candidate] : ConfigNames<Enum>::names) {
    if (candidate == value) return name;
  }
  return {};
}

/// Reads a section and refuses what it does not know.
class ConfigReader {
 public:
  /// `path` is the section's own key path, empty for the root. A missing or empty section has all defaults.
  ConfigReader(const ConfigNode* section, std::string path, const std::string& parent_place);

  void operator()(const char* key, std::int64_t& value, Bounds bounds = {});
  void operator()(const char* key, double& value, Bounds bounds = {});
  void operator()(const char* key, bool& value);
  void operator()(const char* key, std::string& value);
  void operator()(const char* key, std::string& value, NotEmpty);
  /// A list of texts with something in each; one text stands for a list of one.
  void operator()(const char* key, std::vector<std::string>& value);
  void operator()(const char* key, std::vector<std::string>& value, NotEmpty);
  void operator()(const char* key, std::vector<std::int64_t>& value, Bounds bounds = {});
  void operator()(const char* key, std::array<double, 2>& value, Bounds bounds = {});
  /// A number, or the word `auto`, which is the empty value.
  void operator()(const char* key, std::optional<std::int64_t>& value, Bounds bounds = {});
  template <ConfigEnum Enum>
  void operator()(const char* key, Enum& value) {
    const ConfigNode* node = take(key);
    if (node == nullptr) return;
    std::string known;
    for (const auto& [name, candidate] : ConfigNames<Enum>::names) {
      if (node->kind == ConfigNode::Kind::Scalar && node->text == name) {
        value = candidate;
        return;
      }
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
    fail(key, "must be one of " + known + describe_found(*node));
  }

  /// A section inside this one.
  ConfigReader section(const char* key);
  /// The keys that were given.
  std::vector<std::string> keys() const;
  bool has(const char* key) const { return section_ != nullptr && section_->find(key) != nullptr; }
  /// Fails unless the key is there: at the end of the outermost section, so that unknown keys, which may be what was
  /// meant, are told first.
  void require(const char* key);
  /// Fails at once: for a key that decides which others there are.
  void require_first(const char* key);
  /// Whether no required key is missing so far. What follows from several keys can be checked only then.
  bool complete() const { return missing_->empty(); }
  /// Fails when a key was given that nothing has asked for; and, for the outermost section, when one is missing.
  void finish() const;
  /// Throws ConfigError with the place and the path of `key`.
  [[noreturn]] void fail(const std::string& key, const std::string& what) const;

 private:
  using Messages = std::vector<std::string>;
  ConfigReader(const ConfigNode* section, std::string path, const std::string& parent_place,
               std::shared_ptr<Messages> missing);

  const ConfigNode* take(const char* key);
  /// Whether the key is there. Fails when one is there that looks like it.
  bool is_given(const char* key) const;
  std::string place_and_path(const std::string& key) const;
  std::int64_t whole_number(const char* key, const ConfigNode& node, const Bounds& bounds) const;
  double number(const char* key, const ConfigNode& node, const Bounds& bounds) const;
  std::string word(const char* key, const ConfigNode& node) const;
  void check(const char* key, double value, const std::string& text, const Bounds& bounds) const;
  static std::string describe_found(const ConfigNode& node);

  const ConfigNode* section_;
  std::string path_;
  std::string place_;
  std::vector<std::string> known_;
  std::shared_ptr<Messages> missing_;  ///< shared with the sections inside
  bool outermost_ = false;
};

/// Writes a section as JSON, in the order described.
class ConfigWriter {
 public:
  template <typename T, typename... Limits>
  void operator()(const char* key, const T& value, Limits...) {
    json[key] = written(value);
  }

  nlohmann::ordered_json json = nlohmann::ordered_json::object();

 private:
  static nlohmann::ordered_json written(const auto& value) { return value; }
  static nlohmann::ordered_json written(const ConfigEnum auto& value) { return config_name(value); }
  static nlohmann::ordered_json written(const std::optional<std::int64_t>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json("auto");
  }
};

}  // namespace longnet
