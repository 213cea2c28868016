#include "core/configuration/config_node.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/error.h"

namespace longnet {
namespace {

/// Converts YAML nodes and remembers where they came from.
class Converter {
 public:
  /// Places are `source` alone, or `source` with line and column.
  Converter(std::string source, bool with_lines) : source_(std::move(source)), with_lines_(with_lines) {}

  ConfigNode operator()(const YAML::Node& node) const {
    ConfigNode result;
    result.place = place(node.Mark());
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        result.kind = ConfigNode::Kind::Scalar;
        result.text = node.Scalar();
        result.quoted = node.Tag() == "!";
        break;
      case YAML::NodeType::Sequence:
        result.kind = ConfigNode::Kind::Sequence;
        for (const auto& item : node) result.items.push_back((*this)(item));
        break;
      case YAML::NodeType::Map:
        result.kind = ConfigNode::Kind::Map;
        for (const auto& entry : node) add_entry(result, entry.first, entry.second);
        break;
      default:
        break;
    }
    return result;
  }

  std::string place(const YAML::Mark& mark) const {
    if (!with_lines_ || mark.is_null()) return source_;
    return source_ + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
  }

 private:
  void add_entry(ConfigNode& map, const YAML::Node& key, const YAML::Node& value) const {
    const std::string where = place(key.Mark());
    if (!key.IsScalar()) throw ConfigError(where + ": a key must be a word");
    if (map.find(key.Scalar()) != nullptr) throw ConfigError(where + ": the key '" + key.Scalar() + "' is given twice");
    map.entries.push_back({key.Scalar(), where, (*this)(value)});
  }

  std::string source_;
  bool with_lines_;
};

ConfigNode parse(const Converter& converter, const auto& load) {
  try {
    return converter(load());
  } catch (const YAML::BadFile&) {
    throw ConfigError(converter.place(YAML::Mark::null_mark()) + ": cannot be read; give the path of a YAML file");
  } catch (const YAML::Exception& error) {
    throw ConfigError(converter.place(error.mark) + ": " + error.msg);
  }
}

}  // namespace

const ConfigNode* ConfigNode::find(const std::string& key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.key == key; });
  return found == entries.end() ? nullptr : &found->value;
}

ConfigNode load_config_node(const std::filesystem::path& path) {
  return parse(Converter(path.string(), true), [&] { return YAML::LoadFile(path.string()); });
}

void assign(ConfigNode& root, const std::string& assignment) {
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError("--set " + assignment + ": write it as key.path=value");
  }
  const std::string path = assignment.substr(0, equals), place = "--set " + path;
  const auto value = parse(Converter(place, false), [&] { return YAML::Load(assignment.substr(equals + 1)); });

  ConfigNode* node = &root;
  for (std::size_t begin = 0; begin <= path.size();) {
    const auto end = std::min(path.find('.', begin), path.size());
    const std::string key = path.substr(begin, end - begin);
    if (node->kind == ConfigNode::Kind::Null) *node = {ConfigNode::Kind::Map, place, {}, false, {}, {}};
    if (key.empty() || node->kind != ConfigNode::Kind::Map) throw ConfigError(place + ": no such key");
    auto found =
        std::find_if(node->entries.begin(), node->entries.end(), [&](const auto& entry) { return entry.key == key; });
    if (found == node->entries.end()) found = node->entries.insert(found, {key, place, {}});
    node = &found->value;
    begin = end + 1;
  }
  *node = value;
}

}  // namespace longnet
