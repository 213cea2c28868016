#include "core/configuration/config_section.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "core/configuration/spelling.h"
#include "core/error.h"

namespace longnet {
namespace {

/// Whether the digits begin with a zero that does not stand alone: YAML readers disagree about 010.
bool has_leading_zero(const std::string& text) {
  const std::size_t first = text.find_first_not_of("+-");
  return first != std::string::npos && first + 1 < text.size() && text[first] == '0' &&
         std::isdigit(static_cast<unsigned char>(text[first + 1])) != 0;
}

template <typename Number>
std::optional<Number> parse(const std::string& text) {
  Number value{};
  if (text.starts_with("+-")) return {};
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

bool is_whole_number(const std::string& text) {
  const std::size_t first = text.starts_with('+') || text.starts_with('-') ? 1 : 0;
  return text.size() > first && text.find_first_not_of("0123456789", first) == std::string::npos;
}

std::string shortest(double value) {
  constexpr double most_digits = 1e15;
  if (value == std::floor(value) && std::abs(value) < most_digits) {
    return std::to_string(static_cast<std::int64_t>(value));
  }
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

ConfigReader::ConfigReader(const ConfigNode* section, std::string path, const std::string& parent_place)
    : ConfigReader(section, std::move(path), parent_place, std::make_shared<Messages>()) {
  outermost_ = true;
}

ConfigReader::ConfigReader(const ConfigNode* section, std::string path, const std::string& parent_place,
                           std::shared_ptr<Messages> missing)
    : section_(section),
      path_(std::move(path)),
      place_(section != nullptr ? section->place : parent_place),
      missing_(std::move(missing)) {
  if (section_ == nullptr) return;
  if (section_->kind == ConfigNode::Kind::Null) section_ = nullptr;
  if (section_ != nullptr && section_->kind != ConfigNode::Kind::Map) {
    throw ConfigError(place_ + ": " + (path_.empty() ? "the configuration" : path_) + " must hold keys and values" +
                      describe_found(*section_));
  }
}

std::string ConfigReader::place_and_path(const std::string& key) const {
  const ConfigNode* node = section_ != nullptr ? section_->find(key) : nullptr;
  return (node != nullptr ? node->place : place_) + ": " + (path_.empty() ? "" : path_ + ".") + key;
}

void ConfigReader::fail(const std::string& key, const std::string& what) const {
  throw ConfigError(place_and_path(key) + " " + what);
}

const ConfigNode* ConfigReader::take(const char* key) {
  known_.emplace_back(key);
  const ConfigNode* node = section_ != nullptr ? section_->find(key) : nullptr;
  if (node != nullptr && node->kind == ConfigNode::Kind::Null) fail(key, "has no value; give one or leave the key out");
  return node;
}

std::string ConfigReader::describe_found(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::Scalar:
      return ", not '" + node.text + "'";
    case ConfigNode::Kind::Sequence:
      return ", not a list";
    case ConfigNode::Kind::Map:
      return ", not keys and values";
    case ConfigNode::Kind::Null:
      return ", not empty";
  }
  return {};
}

std::int64_t ConfigReader::whole_number(const char* key, const ConfigNode& node, const Bounds& bounds) const {
  const bool plain = node.kind == ConfigNode::Kind::Scalar && !node.quoted;
  if (plain && has_leading_zero(node.text)) fail(key, "must not begin with a zero: '" + node.text + "'");
  const auto value = plain ? parse<std::int64_t>(node.text) : std::nullopt;
  if (!value && plain && is_whole_number(node.text)) {  // of more than 64 bits
    constexpr double infinity = std::numeric_limits<double>::infinity();
    check(key, node.text.starts_with('-') ? -infinity : infinity, node.text, bounds);
    fail(key, "is " + node.text + ": it must be a number of 64 bits");
  }
  if (!value) fail(key, "must be a whole number" + describe_found(node));
  check(key, static_cast<double>(*value), std::to_string(*value), bounds);
  return *value;
}

double ConfigReader::number(const char* key, const ConfigNode& node, const Bounds& bounds) const {
  const bool plain = node.kind == ConfigNode::Kind::Scalar && !node.quoted;
  if (plain && has_leading_zero(node.text)) fail(key, "must not begin with a zero: '" + node.text + "'");
  const auto value = plain ? parse<double>(node.text) : std::nullopt;
  if (!value || *value - *value != 0) fail(key, "must be a number" + describe_found(node));
  check(key, *value, shortest(*value), bounds);
  return *value;
}

std::string ConfigReader::word(const char* key, const ConfigNode& node) const {
  if (node.kind != ConfigNode::Kind::Scalar) fail(key, "must be a text" + describe_found(node));
  return node.text;
}

void ConfigReader::check(const char* key, double value, const std::string& text, const Bounds& bounds) const {
  if (value < bounds.low || (bounds.low_excluded && value == bounds.low)) {
    fail(key, "is " + text + ": it must be " + (bounds.low_excluded ? "above " : "at least ") + shortest(bounds.low));
  }
  if (value > bounds.high || (bounds.high_excluded && value == bounds.high)) {
    fail(key, "is " + text + ": it must be " + (bounds.high_excluded ? "below " : "at most ") + shortest(bounds.high));
  }
}

void ConfigReader::operator()(const char* key, std::int64_t& value, Bounds bounds) {
  if (const ConfigNode* node = take(key)) value = whole_number(key, *node, bounds);
}

void ConfigReader::operator()(const char* key, double& value, Bounds bounds) {
  if (const ConfigNode* node = take(key)) value = number(key, *node, bounds);
}

void ConfigReader::operator()(const char* key, bool& value) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  const bool plain = node->kind == ConfigNode::Kind::Scalar && !node->quoted;
  if (!plain || (node->text != "true" && node->text != "false"))
    fail(key, "must be true or false" + describe_found(*node));
  value = node->text == "true";
}

void ConfigReader::operator()(const char* key, std::string& value) {
  if (const ConfigNode* node = take(key)) value = word(key, *node);
}

void ConfigReader::operator()(const char* key, std::string& value, NotEmpty) {
  (*this)(key, value);
  if (has(key) && value.empty()) fail(key, "is empty");
}

void ConfigReader::operator()(const char* key, std::vector<std::string>& value) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  value.clear();
  if (node->kind == ConfigNode::Kind::Sequence) {
    for (const auto& item : node->items) value.push_back(word(key, item));
  } else {
    value.push_back(word(key, *node));
  }
  if (std::find(value.begin(), value.end(), "") != value.end()) fail(key, "holds an empty text");
}

void ConfigReader::operator()(const char* key, std::vector<std::string>& value, NotEmpty) {
  (*this)(key, value);
  if (has(key) && value.empty()) fail(key, "is an empty list");
}

void ConfigReader::operator()(const char* key, std::vector<std::int64_t>& value, Bounds bounds) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (node->kind != ConfigNode::Kind::Sequence) fail(key, "must be a list of whole numbers" + describe_found(*node));
  value.clear();
  for (const auto& item : node->items) value.push_back(whole_number(key, item, bounds));
}

void ConfigReader::operator()(const char* key, std::array<double, 2>& value, Bounds bounds) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (node->kind != ConfigNode::Kind::Sequence || node->items.size() != 2) {
    fail(key, "must be a list of two numbers" + describe_found(*node));
  }
  for (std::size_t i = 0; i < 2; ++i) {
    value[i] = number(key, node->items[i], bounds);
  }
}

void ConfigReader::operator()(const char* key, std::optional<std::int64_t>& value, Bounds bounds) {
  const ConfigNode* node = take(key);
  if (node == nullptr) return;
  if (node->kind == ConfigNode::Kind::Scalar && node->text == "auto") {
    value.reset();
    return;
  }
  value = whole_number(key, *node, bounds);
}

ConfigReader ConfigReader::section(const char* key) {
  known_.emplace_back(key);
  const ConfigNode* node = section_ != nullptr ? section_->find(key) : nullptr;
  return {node, path_.empty() ? key : path_ + "." + key, place_, missing_};
}

std::vector<std::string> ConfigReader::keys() const {
  std::vector<std::string> keys;
  if (section_ == nullptr) return keys;
  for (const auto& entry : section_->entries) keys.push_back(entry.key);
  return keys;
}

bool ConfigReader::is_given(const char* key) const {
  if (has(key)) return true;
  for (const std::string& given : keys()) {
    if (!near_miss(given, key)) continue;
    throw ConfigError(section_->entry(given).place + ": unknown key '" + (path_.empty() ? "" : path_ + ".") + given +
                      "'; did you mean '" + key + "', which has no default?");
  }
  return false;
}

void ConfigReader::require(const char* key) {
  if (!is_given(key)) missing_->push_back(place_and_path(key) + " is missing: it has no default");
}

void ConfigReader::require_first(const char* key) {
  if (!is_given(key)) fail(key, "is missing: it has no default");
}

void ConfigReader::finish() const {
  const auto is_known = [&](const auto& entry) {
    return std::find(known_.begin(), known_.end(), entry.key) != known_.end();
  };
  if (section_ != nullptr) {
    const auto& entries = section_->entries;
    const auto unknown = std::find_if_not(entries.begin(), entries.end(), is_known);
    if (unknown != entries.end()) {
      throw ConfigError(unknown->place + ": unknown key '" + (path_.empty() ? "" : path_ + ".") + unknown->key + "'" +
                        suggestion(unknown->key, known_));
    }
  }
  if (outermost_ && !complete()) throw ConfigError(missing_->front());
}

}  // namespace longnet
