#include "launch/training/evaluation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <sstream>

#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/training/batch_reader.h"

namespace longnet {

void require_held_out(const Job& job, std::int64_t length, const std::string& key) {
  const DataConfig& config = job.configuration.data;
  const bool by_fraction = config.validation.empty();
  if (by_fraction && job.data.validation->size() == 0) {
    throw ConfigError("nothing is held out to evaluate on: set data.validation_fraction or data.validation");
  }
  try {
    job.data.validation->require_sequence(length, key);
  } catch (const DataError& error) {
    std::ostringstream line;
    line << "to evaluate on, " << error.what();
    if (by_fraction)
      line << "; data.validation_fraction, " << config.validation_fraction << ", says how much is held out";
    throw DataError(line.str());
  }
}

bool for_each_sequence(
    Job& job, std::int64_t length, std::int64_t sequences,
    const std::function<void(const SequencePlace& place, const Batch& batch, const Pass& pass)>& work,
    const StopWish& stop) {
  const c10::NoGradGuard no_gradient;
  const Dataset& data = *job.data.validation;
  agree(*job.mesh.world, [&] { require_held_out(job, length); });
  Pass pass;
  pass.dtype = job.activation_dtype();
  const std::int64_t count = std::min(data.count(length), sequences);
  for (std::int64_t first = 0; first < count; first += job.mesh.data_size) {
    // An evaluation is worth nothing in part, and can be made again at any time.
    if (stop && all_stop(*job.mesh.world, stop, std::numeric_limits<double>::infinity())) return false;
    const std::int64_t index = first + job.mesh.data_index;
    std::vector<SequencePlace> places;  // none where the others have the last sequences
    if (index < count) places.push_back(data.evaluation_sequence(index, length));
    const Batch batch = read_batch(job, data, places, {index});
    if (index < count) work(places[0], on_device(batch, job.device), pass);
  }
  return true;
}

EvaluationResult evaluate(Job& job, std::int64_t length, std::int64_t sequences) {
  return *evaluate(job, length, sequences, {});
}

std::optional<EvaluationResult> evaluate(Job& job, std::int64_t length, std::int64_t sequences, const StopWish& stop) {
  const auto metrics = static_cast<std::int64_t>(job.specification.metrics.size());
  auto sums = at::zeros({2 + metrics}, at::TensorOptions(job.device).dtype(at::kDouble));  // loss, labels, metrics
  const auto add = [&](const SequencePlace&, const Batch& batch, const Pass& pass) {
    const LossSum loss = job.model->loss(batch, pass);
    sums[0] += loss.sum.to(at::kDouble);
    sums[1] += loss.count;
    if (metrics > 0) sums.slice(0, 2) += loss.metrics;
  };
  if (!for_each_sequence(job, length, sequences, add, stop)) return {};
  job.mesh.world->all_reduce(sums, Reduction::Sum)->wait();
  const auto totals = sums.to(at::kCPU);
  const auto mean = [&](std::int64_t index) { return totals[index].item<double>() / totals[1].item<double>(); };
  EvaluationResult result{static_cast<std::int64_t>(totals[1].item<double>()), mean(0), {}};
  for (std::int64_t metric = 0; metric < metrics; ++metric) result.metrics.push_back(mean(2 + metric));
  return result;
}

}  // namespace longnet
