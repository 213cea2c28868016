#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/attention/dilated_attention.h"
#include "distributed/communicator.h"
#include "distributed/exchange_plan.h"

namespace longnet {

/// Who moves the rows of each crossing segment.
struct ExchangeGroups {
  Communicator* sequence;  ///< all ranks of the sequence
  std::vector<Communicator*>
      aligned;  ///< for each crossing segment the ranks it touches, or null where it is unaligned
};

/// The key/value exchange of one attention over a communicator.
///
/// On the wire, rows of one segment from one rank are a tensor (2, B, rows, D): keys, then values; the rows head by
/// head. The communicators, and `received_bytes`, to which all payload that arrives is added, must outlive this object.
std::shared_ptr<KeyValueExchange> make_key_value_exchange(std::shared_ptr<const AttentionPlan> plan,
                                                          std::vector<CrossingTraffic> traffic, ExchangeGroups groups,
                                                          std::int64_t* received_bytes);

}  // namespace longnet
