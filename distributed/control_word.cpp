#include "distributed/control_word.h"

#include <ATen/ATen.h>

namespace longnet {

Agreement::Agreement(Communicator& world, const ControlWord& wishes)
    : word_(at::tensor({std::int64_t{wishes.save}, std::int64_t{wishes.evaluate}, std::int64_t{wishes.stop},
                        std::int64_t{wishes.signal}, wishes.peak_memory_bytes},
                       at::kLong)),
      work_(world.all_reduce(word_, Reduction::Maximum)) {}

ControlWord Agreement::decision() {
  work_->wait();
  const auto* word = word_.const_data_ptr<std::int64_t>();
  return {word[0] != 0, word[1] != 0, word[2] != 0, word[3] != 0, word[4]};
}

}  // namespace longnet
