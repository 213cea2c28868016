#pragma once

#include "launch/job/signals.h"
#include "launch/job/start_up.h"

namespace longnet {

/// What belongs to the process rather than to a job. Made first thing.
struct Process {
  SignalWatch signals;
  StartUp start_up;
};

}  // namespace longnet
