#include "launch/training_step.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/training/clipping.h"
#include "core/training/schedule.h"
#include "distributed/control_word.h"
#include "distributed/gradient_reduction.h"

namespace longnet {
namespace {

/// Sequences of a step that this rank's row of the mesh works on.
std::int64_t row_batch_size(const Job& job) {
  return job.configuration.training.batch_size / job.mesh.data_size;
}

std::int64_t micro_batches(const Job& job) {
  return row_batch_size(job) / job.configuration.training.micro_batch_size;
}

/// This rank's part of a micro-batch of a step that begins after `samples` samples of the run.
Batch read_micro_batch(const Job& job, std::int64_t samples, std::int64_t micro_batch) {
  const TrainingConfig& training = job.configuration.training;
  const std::int64_t first = job.mesh.data_index * row_batch_size(job) + micro_batch * training.micro_batch_size;
  Batch batch{{}, {}, {}, job.parallel->shard(job.configuration.data.sequence_length)};
  std::vector<at::Tensor> tokens, targets;
  for (std::int64_t sample = first; sample < first + training.micro_batch_size; ++sample) {
    const auto slice = job.data.train.sample(samples + sample, static_cast<std::uint64_t>(training.seed),
                                             batch.shard.length, batch.shard.own);
    batch.samples.push_back(sample);
    tokens.push_back(slice.tokens);
    targets.push_back(slice.targets);
  }
  batch.tokens = at::stack(tokens);
  batch.targets = at::stack(targets);
  return batch;
}

/// Sums that all ranks need.
struct Totals {
  double loss = 0;
  double labels = 0;
  double exchange_bytes = 0;
};

Totals sum_over_ranks(Communicator& world, const Totals& mine) {
  auto sums = at::tensor({mine.loss, mine.labels, mine.exchange_bytes}, at::kDouble);
  world.all_reduce(sums, Reduction::Sum)->wait();
  return {sums[0].item<double>(), sums[1].item<double>(), sums[2].item<double>()};
}

}  // namespace

StepResult training_step(Training& training) {
  Job& job = training.job;
  const Configuration& config = job.configuration;
  ParameterSet& parameters = job.model->parameters();
  Communicator& world = *job.mesh.world;
  const std::int64_t step = training.progress.step + 1;
  const Pass pass{job.activation_dtype(), /*training=*/true, config.training.recompute,
                  static_cast<std::uint64_t>(config.training.seed), step};

  Totals mine;
  const std::int64_t received_before = job.parallel->received_bytes();
  parameters.gradients().zero_();
  for (std::int64_t micro_batch = 0; micro_batch < micro_batches(job); ++micro_batch) {
    const Batch batch = read_micro_batch(job, training.progress.samples, micro_batch);
    const auto loss = job.model->loss(batch, pass);
    loss.sum.backward();
    mine.loss += loss.sum.item<double>();
    mine.labels += batch.targets.ne(ignored_target).sum().item<double>();
  }
  mine.exchange_bytes = static_cast<double>(job.parallel->received_bytes() - received_before);

  sum_in_buckets(world, parameters.gradients());
  const Totals totals = sum_over_ranks(world, mine);
  const double loss = totals.loss / totals.labels;
  const double norm = global_norm(parameters.gradients()) / totals.labels;
  const double rate = learning_rate(config.optimizer, step, config.training.steps);

  ControlWord wishes;
  wishes.skip = !std::isfinite(loss) || !std::isfinite(norm);
  const bool skip = agree_on(world, wishes).skip;
  if (!skip) {
    parameters.gradients().mul_(clip_factor(norm, config.optimizer.clip_norm) / totals.labels);
    training.optimizer.update(step, rate);
  }

  training.progress.step = step;
  training.progress.samples += config.training.batch_size;
  training.progress.tokens += config.training.batch_size * config.data.sequence_length;
  return {loss, norm, rate, static_cast<std::int64_t>(totals.exchange_bytes), skip};
}

std::int64_t planned_exchange_bytes(Job& job) {
  const TrainingConfig& training = job.configuration.training;
  const std::int64_t forward = job.model->forward_exchange_bytes(job.configuration.data.sequence_length,
                                                                 training.micro_batch_size, job.activation_dtype());
  auto sum = at::full({1}, forward, at::kLong);
  job.mesh.world->all_reduce(sum, Reduction::Sum)->wait();
  const std::int64_t passes = training.recompute ? 3 : 2;  // forward, again when recomputed, and the gradients
  return passes * micro_batches(job) * sum.item<std::int64_t>();
}

}  // namespace longnet
