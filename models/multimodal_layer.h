#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/longnet_layer.h"

namespace longnet {

/// Which sequences of a batch have which modality. All rows of all modalities lie in one tensor (R, n, C): those of the
/// first modality, then those of the second, and so on; what is missing has no row, and costs nothing.
struct ModalityRows {
  std::int64_t batch;                                ///< B
  std::vector<std::vector<std::int64_t>> sequences;  ///< for each modality, in order

  std::int64_t modalities() const { return static_cast<std::int64_t>(sequences.size()); }
  std::int64_t count(std::size_t modality) const { return static_cast<std::int64_t>(sequences[modality].size()); }
  /// Its rows in x (R, ...). A modality without any gives 0 rows.
  at::Tensor of(const at::Tensor& x, std::size_t modality) const;
  /// The rows of a tensor over the batch (B, ...) for the sequences that have it.
  at::Tensor select(const at::Tensor& batch_rows, std::size_t modality) const;
  /// (B, n, M * C): the modalities side by side; `missing[m]` (C) stands where a sequence lacks the modality m.
  at::Tensor concatenate(const std::vector<at::Tensor>& rows, const std::vector<at::Tensor>& missing) const;
};

/// What a layer's attentions work with: the modality's own, and the one over the concatenation.
struct MultimodalAttention {
  std::vector<LayerAttention> own;
  LayerAttention cross;
};

/// Dropout of a layer: sites of its parts. Empty: no dropout.
struct MultimodalSites {
  std::vector<DropoutSite> own;
  std::vector<DropoutSite> cross;  ///< one
};

/// One layer: for each modality m
///
///     y_m = x_m + attention_m(self_attn_layer_norm_m(x_m))
///     u   = [cross_layer_norm_1(y_1) ... cross_layer_norm_M(y_M)]       side by side, along the features
///     z_m = y_m + cross(u)_m                                           attention over u: M * C to cross.width and back
///     x_m = z_m + feed_forward_m(z_m)
///
/// The normalization gives every modality the same weight in u, whatever its scale. Nothing orders the modalities.
class MultimodalLayer {
 public:
  MultimodalLayer(ParameterSet& parameters, const std::string& name, const std::vector<std::string>& modalities,
                  const LayerSettings& own, const LayerSettings& cross);

  /// x (R, n, C) to the same.
  at::Tensor operator()(const at::Tensor& x, const ModalityRows& rows, const MultimodalAttention& attention,
                        const MultimodalSites& sites) const;

 private:
  struct Modality {
    LayerNorm self_attn_layer_norm;
    ProjectedAttention self_attn;
    LayerNorm cross_layer_norm;
    at::Tensor missing;  // (C)
    FeedForward feed_forward;
  };

  std::int64_t width_;
  std::vector<Modality> modalities_;
  ProjectedAttention cross_;
};

}  // namespace longnet
