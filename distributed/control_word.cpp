#include "distributed/control_word.h"

#include <ATen/ATen.h>

namespace longnet {

ControlWord agree_on(Communicator& world, const ControlWord& wishes) {
  auto word = at::tensor(
      {int(wishes.skip), int(wishes.save), int(wishes.evaluate), int(wishes.stop), int(wishes.signal)}, at::kInt);
  world.all_reduce(word, Reduction::Maximum)->wait();
  const auto bit = [&](std::int64_t index) { return word[index].item<int>() != 0; };
  return {bit(0), bit(1), bit(2), bit(3), bit(4)};
}

}  // namespace longnet
