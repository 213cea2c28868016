#include "models/model.h"

#include <ATen/ATen.h>

namespace longnet {

Batch on_device(const Batch& batch, c10::Device device) {
  if (device.is_cpu()) return batch;
  const auto moved = [&](const at::Tensor& tensor) {  // from pinned memory, else the host would wait
    return tensor.pin_memory().to(at::TensorOptions(device), /*non_blocking=*/true);
  };
  return {moved(batch.tokens), moved(batch.targets), batch.samples, batch.shard};
}

}  // namespace longnet
