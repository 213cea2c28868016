#pragma once

#include <ATen/core/Tensor.h>

#include "distributed/communicator.h"

namespace longnet {

/// The sum of every rank's x, of equal shapes, on every rank. Differentiable; collective forward and backward, so every
/// rank's loss must depend on it. `ranks` must live until the backward pass is over.
at::Tensor sum_over_ranks(const at::Tensor& x, Communicator& ranks);

}  // namespace longnet
