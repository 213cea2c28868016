#include "core/cuda/trace.h"

#include <nvtx3/nvToolsExt.h>

namespace longnet {

TraceRange::TraceRange(const char* name) {
  nvtxRangePushA(name);
}

TraceRange::~TraceRange() {
  nvtxRangePop();
}

}  // namespace longnet
