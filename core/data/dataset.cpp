#include "core/data/dataset.h"

#include "core/error.h"

namespace longnet {

void Dataset::require_sequence(std::int64_t length) const {
  if (count(length) >= 1) return;
  throw DataError("the data hold " + std::to_string(size()) + " tokens, too few for one sequence of " +
                  std::to_string(length) + " and the token after it; lower data.sequence_length or add data");
}

}  // namespace longnet
