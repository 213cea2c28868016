#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace longnet {

/// JSON of a file that somebody else may have written. Throws DataError for what is no JSON, for an object with a name
/// that is there twice (a parser keeps one of the two without a word), and for more than 64 levels, which would be
/// walked by recursion.
nlohmann::json parse_json(const std::string& text);

}  // namespace longnet
