#include "core/layers/recompute.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Context : torch::CustomClassHolder {
  explicit Context(std::function<at::Tensor(const at::Tensor&)> layer_) : layer(std::move(layer_)) {}
  std::function<at::Tensor(const at::Tensor&)> layer;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const c10::intrusive_ptr<Context>& context) {
    ctx->save_for_backward({x});
    ctx->saved_data["context"] = c10::IValue::make_capsule(context);
    return context->layer(x);  // autograd is off inside a Function
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto context = c10::static_intrusive_pointer_cast<Context>(ctx->saved_data["context"].toCapsule());
    auto x = ctx->get_saved_variables()[0].detach().requires_grad_();
    at::Tensor y;
    {
      const at::AutoGradMode with_gradient(true);
      y = context->layer(x);
    }
    torch::autograd::backward({y}, {gradients[0]});  // parameters get their gradients here
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor recompute(const std::function<at::Tensor(const at::Tensor&)>& layer, const at::Tensor& x) {
  return Recompute::apply(x, c10::make_intrusive<Context>(layer));
}

}  // namespace longnet
