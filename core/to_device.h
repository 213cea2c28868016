#pragma once

#include <ATen/core/Tensor.h>

namespace longnet {

/// A host's tensor on `device`. The host does not wait for a GPU: the copy leaves from pinned memory, in the order of the
/// current stream. The tensor itself where the device is the host.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

}  // namespace longnet
