#pragma once

#include <cstdint>
#include <vector>

#include "launch/job/job.h"

namespace longnet {

/// This rank's part of the sequences at `places` of `data`, padded to the longest, on the host; none where there are no
/// places. `samples`: see Batch. Collective over all ranks: what is wrong with the data of any ends all, as one error.
Batch read_batch(const Job& job, const Dataset& data, const std::vector<SequencePlace>& places,
                 const std::vector<std::int64_t>& samples);

}  // namespace longnet
