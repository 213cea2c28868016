#pragma once

#include <string>
#include <vector>

namespace longnet {

/// "; did you mean 'x'?" for the candidate that is nearest to a misspelt word, empty where none is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& candidates);

/// Whether two words differ in a few letters only.
bool near_miss(const std::string& word, const std::string& other);

}  // namespace longnet
