#include "distributed/sequence_sum.h"

#include <ATen/ATen.h>

#include "core/autograd.h"

namespace longnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor summed(const at::Tensor& x, Communicator& ranks) {
  auto sum = x.clone(at::MemoryFormat::Contiguous);
  ranks.all_reduce(sum, Reduction::Sum)->wait();
  return sum;
}

class SumOverRanks : public torch::autograd::Function<SumOverRanks> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const c10::intrusive_ptr<Kept<Communicator*>>& ranks) {
    keep(ctx, ranks);
    return summed(x, *ranks->value);
  }

  /// Each rank's x went into every rank's loss.
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    return {summed(gradients[0], *recall<Communicator*>(ctx)), at::Tensor()};
  }
};

}  // namespace

at::Tensor sum_over_ranks(const at::Tensor& x, Communicator& ranks) {
  return SumOverRanks::apply(always_followed(x), kept(&ranks));
}

}  // namespace longnet
