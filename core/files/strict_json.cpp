#include "core/files/strict_json.h"

#include <cstdint>
#include <set>
#include <vector>

#include "core/error.h"

namespace longnet {
namespace {

/// Looks at JSON without keeping it.
class Inspector : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return true; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return true; }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool string(string_t& /*value*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*size*/) override { return enter(); }
  bool start_array(std::size_t /*size*/) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (!names_.back().insert(name).second) throw DataError("the name " + name + " is there twice");
    return true;
  }
  bool parse_error(std::size_t place, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    throw DataError("it is no JSON from byte " + std::to_string(place) + " on");
  }

 private:
  bool enter() {
    constexpr std::size_t most_levels = 64;
    if (names_.size() == most_levels) throw DataError("its JSON has more than 64 levels");
    names_.emplace_back();
    return true;
  }
  bool leave() {
    names_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> names_;  ///< of the objects that are open
};

}  // namespace

nlohmann::json parse_json(const std::string& text) {
  Inspector inspector;
  nlohmann::json::sax_parse(text, &inspector);
  return nlohmann::json::parse(text);
}

}  // namespace longnet
