#pragma once

#include <ATen/core/Tensor.h>

#include "distributed/sequence_shard.h"

/// A learned token before the first of a sequence: position 0, on the shard where the sequence begins.
namespace longnet {

/// x (B, n, C) of the data's positions, with the token (1, 1, C) in front where it belongs, in x's dtype.
at::Tensor with_class_token(const at::Tensor& x, const at::Tensor& token, const SequenceShard& shard);

/// What with_class_token was given, of activations that have passed through the model since.
at::Tensor without_class_token(const at::Tensor& x, const SequenceShard& shard);

}  // namespace longnet
