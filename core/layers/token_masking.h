#pragma once

#include <ATen/core/Tensor.h>

#include "core/layers/dropout.h"

namespace longnet {

/// What a model reads, and what it is to guess.
struct MaskedTokens {
  at::Tensor tokens;   ///< (B, n) int64
  at::Tensor targets;  ///< (B, n) int64: ignored_target where nothing was chosen
};

/// BERT's task (arXiv 1810.04805, section 3.1): `fraction` of the tokens (B, n), all below `vocabulary`, is chosen; of
/// these, 80 % become the token `vocabulary`, 10 % a random token, and 10 % stay. The choice is made as a dropout's
/// mask is, so it does not depend on the rank count; `site.site` is set here.
MaskedTokens mask_tokens(const at::Tensor& tokens, double fraction, std::int64_t vocabulary, DropoutSite site);

}  // namespace longnet
