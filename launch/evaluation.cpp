#include "launch/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "distributed/agreement.h"

namespace longnet {

EvaluationResult evaluate(Job& job, std::int64_t length, std::int64_t tokens) {
  const c10::NoGradGuard no_gradient;
  const TokenDataset& data = job.data.validation;
  agree(*job.mesh.world, [&] { data.require_window(length); });
  const std::int64_t windows = std::min(data.windows(length), (tokens + length - 1) / length);
  Pass pass;
  pass.dtype = job.activation_dtype();

  auto sums = at::zeros({2}, at::TensorOptions(job.device).dtype(at::kDouble));  // loss, tokens
  for (std::int64_t window = job.mesh.data_index; window < windows; window += job.mesh.data_size) {
    const SequenceShard shard = job.parallel->shard(length);
    const auto slice = data.window(window, length, shard.own);
    const Batch batch{slice.tokens.unsqueeze(0), slice.targets.unsqueeze(0), {window}, shard};
    const auto loss = job.model->loss(on_device(batch, job.device), pass);
    sums[0] += loss.sum.to(at::kDouble);
    sums[1] += loss.count;
  }
  job.mesh.world->all_reduce(sums, Reduction::Sum)->wait();
  const auto totals = sums.to(at::kCPU);
  const double count = totals[1].item<double>();
  return {static_cast<std::int64_t>(count), totals[0].item<double>() / count};
}

}  // namespace longnet
