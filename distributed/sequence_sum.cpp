#include "distributed/sequence_sum.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Context : torch::CustomClassHolder {
  explicit Context(Communicator& ranks_) : ranks(ranks_) {}
  Communicator& ranks;
};

at::Tensor summed(const at::Tensor& x, Communicator& ranks) {
  auto sum = x.clone(at::MemoryFormat::Contiguous);
  ranks.all_reduce(sum, Reduction::Sum)->wait();
  return sum;
}

class SumOverRanks : public torch::autograd::Function<SumOverRanks> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const c10::intrusive_ptr<Context>& context) {
    ctx->saved_data["context"] = c10::IValue::make_capsule(context);
    return summed(x, context->ranks);
  }

  /// Each rank's x went into every rank's loss.
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto context = c10::static_intrusive_pointer_cast<Context>(ctx->saved_data["context"].toCapsule());
    return {summed(gradients[0], context->ranks), at::Tensor()};
  }
};

}  // namespace

at::Tensor sum_over_ranks(const at::Tensor& x, Communicator& ranks) {
  return SumOverRanks::apply(x, c10::make_intrusive<Context>(ranks));
}

}  // namespace longnet
