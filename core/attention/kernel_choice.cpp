#include "core/attention/kernel_choice.h"

#include <algorithm>

namespace longnet {

Kernel choose_kernel(const KernelCase& call) {
  if (!call.cuda) return Kernel::CpuFlash;
  const bool half = call.dtype == at::kBFloat16 || call.dtype == at::kHalf;
  const bool known = half || call.dtype == at::kFloat;
  if (call.compute_capability < 80 || !known || !call.aligned || call.head_width > 256) return Kernel::Plain;
  if (!half || call.masked) return Kernel::Efficient;
  constexpr std::int64_t worth_planning = 128;
  const int major = call.compute_capability / 10;
  const bool cudnn = (major == 9 || major == 10) && call.head_width <= 128;
  return cudnn && std::min(call.rows, call.keys) >= worth_planning ? Kernel::Cudnn : Kernel::CudaFlash;
}

}  // namespace longnet
