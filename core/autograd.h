#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

/// What the project's own autograd functions share.
namespace longnet {

/// A value that a function keeps from its forward to its backward pass besides tensors.
template <typename T>
struct Kept : torch::CustomClassHolder {
  explicit Kept(T value_) : value(std::move(value_)) {}
  T value;
};

/// Makes one, to be given to Function::apply.
template <typename T>
c10::intrusive_ptr<Kept<T>> kept(T value) {
  return c10::make_intrusive<Kept<T>>(std::move(value));
}

/// Keeps it: for a function's forward pass.
template <typename T>
void keep(torch::autograd::AutogradContext* ctx, const c10::intrusive_ptr<Kept<T>>& value) {
  ctx->saved_data["kept"] = c10::IValue::make_capsule(value);
}

/// What was kept: for its backward pass.
template <typename T>
const T& recall(torch::autograd::AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Kept<T>>(ctx->saved_data["kept"].toCapsule())->value;
}

/// x as an input whose function autograd does not leave out. LibTorch makes a node only where an input needs a gradient.
/// That is too little for a function whose backward pass does more than return gradients of its inputs: one that other
/// ranks wait for, or one that gives gradients to parameters that it holds itself.
inline at::Tensor always_followed(const at::Tensor& x) {
  return !at::GradMode::is_enabled() || x.requires_grad() ? x : x.detach().requires_grad_();
}

}  // namespace longnet
