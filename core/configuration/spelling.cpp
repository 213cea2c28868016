#include "core/configuration/spelling.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace longnet {
namespace {

/// How many letters must be inserted, removed or replaced to turn `a` into `b`.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({replaced, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row[b.size()];
}

}  // namespace

bool near_miss(const std::string& word, const std::string& other) {
  return word != other && edit_distance(word, other) <= std::max<std::size_t>(2, word.size() / 3);
}

std::string suggestion(const std::string& word, const std::vector<std::string>& candidates) {
  const auto nearest = std::min_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
  if (nearest == candidates.end() || !near_miss(word, *nearest)) return {};
  return "; did you mean '" + *nearest + "'?";
}

}  // namespace longnet
