#include "core/to_device.h"

#include <ATen/ATen.h>

namespace longnet {

at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  if (device.is_cpu()) return host;
  return host.pin_memory().to(at::TensorOptions(device), /*non_blocking=*/true);
}

}  // namespace longnet
