#include "distributed/control_word.h"

#include <ATen/ATen.h>

namespace longnet {

ControlWord agree_on(Communicator& world, const ControlWord& wishes) {
  auto word = at::tensor({std::int64_t{wishes.save}, std::int64_t{wishes.evaluate}, std::int64_t{wishes.stop},
                          std::int64_t{wishes.signal}, wishes.peak_memory_bytes},
                         at::kLong);
  world.all_reduce(word, Reduction::Maximum)->wait();
  const auto* all = word.const_data_ptr<std::int64_t>();
  return {all[0] != 0, all[1] != 0, all[2] != 0, all[3] != 0, all[4]};
}

}  // namespace longnet
