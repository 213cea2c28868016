#include "core/data/dataset.h"

#include "core/error.h"

namespace longnet {

void Dataset::require_sequence(std::int64_t length, const std::string& key) const {
  if (count(length) >= 1) return;
  throw DataError(shortage(length, key));
}

}  // namespace longnet
