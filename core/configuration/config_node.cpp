#include "core/configuration/config_node.h"

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "core/files/input_file.h"

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
      case YAML::NodeType::Null:
      case YAML::NodeType::Undefined:
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

/// Refuses aliases: yaml-cpp would follow them, and copies of copies grow beyond all memory.
class AliasGuard : public YAML::EventHandler {
 public:
  explicit AliasGuard(const Converter& converter) : converter_(converter) {}

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw ConfigError(converter_.place(mark) + ": aliases (*name) are not taken; write the value out");
  }
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  const Converter& converter_;
};

/// Throws ConfigError for aliases, and for a second document, which would be passed over.
void require_plain(const std::string& text, const Converter& converter) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  AliasGuard guard(converter);
  if (parser.HandleNextDocument(guard) && parser.HandleNextDocument(guard)) {
    throw ConfigError(converter.place(YAML::Mark::null_mark()) + ": holds more than one document (---)");
  }
}

std::string content(const std::filesystem::path& path) {
  constexpr std::uint64_t largest = 1 << 20;
  try {
    const InputFile file(path);
    if (file.size() > largest) throw ConfigError(path.string() + ": is larger than a configuration can be");
    return file.beginning(largest);
  } catch (const DataError& error) {
    throw ConfigError(std::string(error.what()) + "; give the path of a YAML file");
  }
}

ConfigNode parse(const Converter& converter, const auto& load) {
  try {
    return converter(load());
  } catch (const YAML::DeepRecursion& error) {  // yaml-cpp calls that a bad file
    throw ConfigError(converter.place(error.mark) + ": lists or keys are nested deeper than any configuration's");
  } catch (const YAML::Exception& error) {
    throw ConfigError(converter.place(error.mark) + ": " + error.msg);
  }
}

}  // namespace

const ConfigNode* ConfigNode::find(const std::string& key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.key == key; });
  return found == entries.end() ? nullptr : &found->value;
}

const ConfigNode::Entry& ConfigNode::entry(const std::string& key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& each) { return each.key == key; });
  if (found == entries.end()) throw Error("the key " + key + " is not there");
  return *found;
}

ConfigNode load_config_node(const std::filesystem::path& path) {
  const Converter converter(path.string(), true);
  const std::string text = content(path);
  return parse(converter, [&] {
    require_plain(text, converter);
    return YAML::Load(text);
  });
}

void assign(ConfigNode& root, const std::string& assignment) {
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError("--set " + assignment + ": write it as key.path=value");
  }
  const std::string path = assignment.substr(0, equals), place = "--set " + path;
  const Converter converter(place, false);
  const std::string text = assignment.substr(equals + 1);
  const auto value = parse(converter, [&] {
    require_plain(text, converter);
    return YAML::Load(text);
  });

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
    // What is wrong with a section as a whole may be this assignment's.
    if (begin <= path.size())
      node->place += (node->place.find("--set ") == std::string::npos ? " with " : ", ") + place;
  }
  *node = value;
}

}  // namespace longnet
