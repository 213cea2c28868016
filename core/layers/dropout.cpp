#include "core/layers/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "core/autograd.h"
#include "core/layers/cuda/dropout.h"
#include "core/layers/dropout_mask.h"
#include "core/random.h"

namespace longnet {
namespace {

DropoutMask mask_at(double rate, const DropoutSite& site) {
  const auto key = hash({site.seed, static_cast<std::uint64_t>(site.step), static_cast<std::uint64_t>(site.layer),
                         static_cast<std::uint64_t>(site.site)});
  const auto threshold = static_cast<std::uint32_t>(std::min(rate * 4294967296.0, 4294967295.0));
  return {key, threshold, 1 / (1 - rate), site.first_position};
}

void apply_on_cpu(const at::Tensor& input, at::Tensor& output, const DropoutMask& mask,
                  const std::vector<std::int64_t>& samples) {
  const std::int64_t rows = input.size(1), channels = input.size(2);
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, input.scalar_type(), "dropout", [&] {
    const auto keep = static_cast<at::opmath_type<scalar_t>>(mask.keep);
    const scalar_t* from = input.const_data_ptr<scalar_t>();
    scalar_t* to = output.data_ptr<scalar_t>();
    at::parallel_for(0, input.size(0) * rows, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        at::Philox4_32 random = mask.numbers(samples[static_cast<std::size_t>(row / rows)], row % rows, channels, 0);
        for (std::int64_t channel = row * channels; channel < (row + 1) * channels; ++channel) {
          to[channel] = random() < mask.threshold ? scalar_t(0) : static_cast<scalar_t>(from[channel] * keep);
        }
      }
    });
  });
}

at::Tensor masked(const at::Tensor& x, double rate, const DropoutSite& site) {
  const auto input = x.contiguous();
  auto output = at::empty_like(input);
  const DropoutMask mask = mask_at(rate, site);
  input.is_cuda() ? cuda::dropout(input, output, mask, site.samples) : apply_on_cpu(input, output, mask, site.samples);
  return output;
}

struct Settings {
  double rate;
  DropoutSite site;
};

class Dropout : public torch::autograd::Function<Dropout> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const c10::intrusive_ptr<Kept<Settings>>& settings) {
    keep(ctx, settings);
    return masked(x, settings->value.rate, settings->value.site);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const auto& [rate, site] = recall<Settings>(ctx);
    return {masked(gradients[0], rate, site), at::Tensor()};
  }
};

}  // namespace

at::Tensor dropout(const at::Tensor& x, double rate, const DropoutSite& site) {
  if (rate == 0) return x;
  return Dropout::apply(x, kept(Settings{rate, site}));
}

}  // namespace longnet
