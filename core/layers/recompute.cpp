#include "core/layers/recompute.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/autograd.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Layer = std::function<at::Tensor(const at::Tensor&)>;

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const c10::intrusive_ptr<Kept<Layer>>& layer) {
    ctx->save_for_backward({x});
    keep(ctx, layer);
    return layer->value(x);  // autograd is off inside a Function
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    auto x = ctx->get_saved_variables()[0].detach().requires_grad_();
    at::Tensor y;
    {
      const at::AutoGradMode with_gradient(true);
      y = recall<Layer>(ctx)(x);
    }
    torch::autograd::backward({y}, {gradients[0]});  // parameters get their gradients here
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor recompute(const std::function<at::Tensor(const at::Tensor&)>& layer, const at::Tensor& x) {
  // The layer's parameters are invisible to autograd, and inside it ranks may wait for each other.
  return Recompute::apply(always_followed(x), kept(layer));
}

}  // namespace longnet
