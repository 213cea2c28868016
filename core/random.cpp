#include "core/random.h"

#include <xxhash.h>

namespace longnet {

std::uint64_t hash(std::initializer_list<std::uint64_t> values) {
  return XXH3_64bits(values.begin(), values.size() * sizeof(std::uint64_t));
}

}  // namespace longnet
