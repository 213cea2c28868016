#include "models/multimodal_layer.h"

#include <ATen/ATen.h>

#include "core/to_device.h"

namespace longnet {
namespace {

at::Tensor indices(const std::vector<std::int64_t>& sequences, c10::Device device) {
  return to_device(at::tensor(sequences, at::kLong), device);
}

const DropoutSite* site(const std::vector<DropoutSite>& sites, std::size_t index) {
  return sites.empty() ? nullptr : &sites[index];
}

}  // namespace

at::Tensor ModalityRows::of(const at::Tensor& x, std::size_t modality) const {
  std::int64_t begin = 0;
  for (std::size_t before = 0; before < modality; ++before) begin += count(before);
  return x.slice(0, begin, begin + count(modality));
}

at::Tensor ModalityRows::select(const at::Tensor& batch_rows, std::size_t modality) const {
  if (count(modality) == batch) return batch_rows;
  return batch_rows.index_select(0, indices(sequences[modality], batch_rows.device()));
}

at::Tensor ModalityRows::concatenate(const std::vector<at::Tensor>& rows,
                                     const std::vector<at::Tensor>& missing) const {
  std::vector<at::Tensor> slots;
  for (std::size_t modality = 0; modality < rows.size(); ++modality) {
    const at::Tensor& present = rows[modality];
    if (count(modality) == batch) {
      slots.push_back(present);
      continue;
    }
    const auto empty = missing[modality].to(present.scalar_type()).expand({batch, present.size(1), -1});
    slots.push_back(empty.index_copy(0, indices(sequences[modality], present.device()), present));
  }
  return at::cat(slots, -1);
}

MultimodalLayer::MultimodalLayer(ParameterSet& parameters, const std::string& name,
                                 const std::vector<std::string>& modalities, const LayerSettings& own,
                                 const LayerSettings& cross)
    : width_(own.width),
      cross_(parameters, name + ".cross", cross, own.width * static_cast<std::int64_t>(modalities.size()),
             own.width * static_cast<std::int64_t>(modalities.size())) {
  for (const std::string& modality : modalities) {
    std::string below = name;
    below.append(".modalities.").append(modality);
    modalities_.push_back({LayerNorm(parameters, below + ".self_attn_layer_norm", own.width),
                           ProjectedAttention(parameters, below + ".self_attn", own, own.width, own.width),
                           LayerNorm(parameters, below + ".cross_layer_norm", own.width),
                           parameters.add(below + ".missing", {own.width}, normal(1)),
                           FeedForward(parameters, below, own)});
  }
}

at::Tensor MultimodalLayer::operator()(const at::Tensor& x, const ModalityRows& rows,
                                       const MultimodalAttention& attention, const MultimodalSites& sites) const {
  std::vector<at::Tensor> attended, normalized, missing;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    const Modality& modality = modalities_[index];
    auto y = rows.of(x, index);
    if (rows.count(index) > 0) {
      y = y + modality.self_attn(modality.self_attn_layer_norm(y), attention.own[index], site(sites.own, index));
    }
    attended.push_back(y);
    normalized.push_back(modality.cross_layer_norm(y));
    missing.push_back(modality.missing);
  }
  const auto crossed = cross_(rows.concatenate(normalized, missing), attention.cross, site(sites.cross, 0));
  std::vector<at::Tensor> outputs;
  for (std::size_t index = 0; index < modalities_.size(); ++index) {
    if (rows.count(index) == 0) continue;
    const auto z =
        attended[index] + rows.select(crossed.narrow(-1, static_cast<std::int64_t>(index) * width_, width_), index);
    outputs.push_back(z + modalities_[index].feed_forward(z, site(sites.own, index)));
  }
  return at::cat(outputs);
}

}  // namespace longnet
