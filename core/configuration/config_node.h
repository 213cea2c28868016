#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace longnet {

/// A value of a configuration, with the place it was written at. Scalars are text: what they mean is up to the reader.
struct ConfigNode {
  enum class Kind { Null, Scalar, Sequence, Map };

  struct Entry;

  Kind kind = Kind::Null;
  std::string place;              ///< "file:line:column", or the command-line option
  std::string text;               ///< of a scalar
  bool quoted = false;            ///< a quoted scalar is text, whatever it looks like
  std::vector<ConfigNode> items;  ///< of a sequence
  std::vector<Entry> entries;     ///< of a map, in the order written

  const ConfigNode* find(const std::string& key) const;
  /// The entry of a key that is there.
  const Entry& entry(const std::string& key) const;
};

struct ConfigNode::Entry {
  std::string key;
  std::string place;
  ConfigNode value;
};

/// Reads a YAML file of one document. Throws ConfigError, with the place, for bad syntax, duplicate keys and aliases, which
/// can make gigabytes of a line; and for what is no file, or larger than a configuration can be.
ConfigNode load_config_node(const std::filesystem::path& path);

/// Applies `assignment`, "key.path=value" with a YAML value, to `root`: replaces the value there or adds it.
void assign(ConfigNode& root, const std::string& assignment);

}  // namespace longnet
