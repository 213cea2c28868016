#include "core/data/dataset.h"

#include "core/error.h"

namespace longnet {

void Dataset::require_sequence(std::int64_t length) const {
  if (count(length) >= 1) return;
  throw DataError(shortage(length));
}

}  // namespace longnet
