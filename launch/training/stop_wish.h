#pragma once

#include <functional>

#include "distributed/control_word.h"

namespace longnet {

/// Whether this rank wishes to give up work that is under way: asked on all ranks between its parts. `seconds_left` is what the rest
/// would take, as the parts before have.
using StopWish = std::function<bool(double seconds_left)>;

/// Asks all ranks; what one wishes, all do. Collective.
inline bool all_stop(Communicator& world, const StopWish& wish, double seconds_left) {
  ControlWord mine;
  mine.signal = wish(seconds_left);
  return agree_on(world, mine).signal;
}

}  // namespace longnet
