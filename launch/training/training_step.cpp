#include "launch/training/training_step.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <optional>

#include "core/cuda/trace.h"
#include "core/seconds_since.h"
#include "core/training/clipping.h"
#include "core/training/schedule.h"
#include "distributed/flat_parts.h"
#include "launch/training/batch_reader.h"

namespace longnet {
namespace {

/// Sequences of a step that this rank's row of the mesh works on.
std::int64_t row_batch_size(const Job& job) {
  return job.configuration.training.batch_size / job.mesh.data_size;
}

std::int64_t micro_batches(const Job& job) {
  return row_batch_size(job) / job.configuration.training.micro_batch_size;
}

/// Where the sequence number `sample` of a step is that begins after `samples` samples of the run.
SequencePlace place_of(const Job& job, std::int64_t samples, std::int64_t sample) {
  const Configuration& config = job.configuration;
  return job.data.train->training_sequence(samples + sample, static_cast<std::uint64_t>(config.training.seed),
                                           config.data.sequence_length);
}

/// This rank's part of a micro-batch of a step that begins after `samples` samples of the run.
Batch read_micro_batch(const Job& job, std::int64_t samples, std::int64_t micro_batch) {
  const TraceRange trace("data");
  const std::int64_t count = job.configuration.training.micro_batch_size;
  const std::int64_t first = job.mesh.data_index * row_batch_size(job) + micro_batch * count;
  std::vector<SequencePlace> places;
  std::vector<std::int64_t> numbers;
  for (std::int64_t sample = first; sample < first + count; ++sample) {
    places.push_back(place_of(job, samples, sample));
    numbers.push_back(sample);
  }
  return read_batch(job, *job.data.train, places, numbers);
}

/// Positions of all sequences of the step.
std::int64_t tokens_of_step(const Job& job, std::int64_t samples) {
  std::int64_t tokens = 0;
  for (std::int64_t sample = 0; sample < job.configuration.training.batch_size; ++sample) {
    tokens += place_of(job, samples, sample).length;
  }
  return tokens;
}

/// Why a step is skipped, as a number on the device; of several reasons the greatest counts.
constexpr double not_skipped = 0, loss_is_spike = 1, not_finite = 2;

at::Tensor skip_reason(std::optional<SpikeGuard>& spikes, const at::Tensor& loss, const at::Tensor& norm) {
  const auto infinite = (loss + norm).isfinite().logical_not().to(at::kDouble) * not_finite;
  return spikes ? at::maximum(infinite, (*spikes)(loss)*loss_is_spike) : infinite;
}

using Clock = std::chrono::steady_clock;

/// Adds the gradients of a micro-batch to the parameters', and its loss and labels to `totals`.
void add_micro_batch(Job& job, const Batch& batch, const Pass& pass, const at::Tensor& totals) {
  LossSum loss;
  {
    const TraceRange trace("forward");
    loss = job.model->loss(on_device(batch, job.device), pass);
  }
  const TraceRange trace("backward");
  loss.sum.backward();
  totals[0].add_(loss.sum.detach());
  totals[1].add_(loss.count);
}

/// Adds the gradients of all micro-batches of this rank's row; false when the ranks have given it up.
bool add_micro_batches(Training& training, const Pass& pass, const at::Tensor& totals, const StopWish& stop) {
  Job& job = training.job;
  const auto begin = Clock::now();
  const std::int64_t count = micro_batches(job);
  for (std::int64_t micro_batch = 0; micro_batch < count; ++micro_batch) {
    if (stop && micro_batch > 0) {
      const double each = seconds_since(begin) / static_cast<double>(micro_batch);
      if (all_stop(*job.mesh.world, stop, each * static_cast<double>(count - micro_batch))) return false;
    }
    add_micro_batch(job, read_micro_batch(job, training.progress.samples, micro_batch), pass, totals);
  }
  return true;
}

/// The numbers on their way to the host, which does not wait for them here.
at::Tensor on_the_way_to_host(const at::Tensor& numbers) {
  if (numbers.is_cpu()) return numbers;
  auto host = at::empty(numbers.sizes(), numbers.options().device(at::kCPU).pinned_memory(true));
  host.copy_(numbers, /*non_blocking=*/true);
  return host;
}

}  // namespace

/// When a step began and ended, by the clock of whatever carries it out.
class StepClock {
 public:
  explicit StepClock(c10::Device device) : device_(device), host_begin_(Clock::now()) {
    if (!device_.is_cpu()) record(begin_);
  }
  void stop() { device_.is_cpu() ? void(host_end_ = Clock::now()) : record(end_); }

  /// Waits for the end.
  double seconds() {
    if (device_.is_cpu()) return std::chrono::duration<double>(host_end_ - host_begin_).count();
    end_->synchronize();
    return begin_->elapsedTime(*end_) / 1000;
  }

 private:
  void record(std::optional<c10::Event>& event) const {
    event.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // with the time
    event->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }

  c10::Device device_;
  Clock::time_point host_begin_, host_end_;
  std::optional<c10::Event> begin_, end_;
};

StepResult StartedStep::result() const {
  const double seconds = clock_->seconds();
  const auto* numbers = numbers_.const_data_ptr<double>();
  return {numbers[0],
          numbers[1],
          learning_rate_,
          tokens_,
          static_cast<std::int64_t>(numbers[2]),
          seconds,
          numbers[3] != not_skipped,
          numbers[3] == loss_is_spike};
}

StartedStep training_step(Training& training) {
  return *training_step(training, {});
}

std::optional<StartedStep> training_step(Training& training, const StopWish& stop) {
  Job& job = training.job;
  const Configuration& config = job.configuration;
  ParameterSet& parameters = job.model->parameters();
  const at::Tensor& gradients = parameters.gradients();
  Communicator& world = *job.mesh.world;
  const std::int64_t step = training.progress.step + 1;
  const Pass pass{job.activation_dtype(), /*training=*/true, config.training.recompute,
                  static_cast<std::uint64_t>(config.training.seed), step};
  StartedStep started;
  started.clock_ = std::make_shared<StepClock>(job.device);

  const std::int64_t received_before = job.parallel->received_bytes();
  auto totals = at::zeros({4}, at::TensorOptions(job.device).dtype(at::kDouble));  // loss, labels, bytes, squared norm
  gradients.zero_();
  if (!add_micro_batches(training, pass, totals, stop)) return {};
  totals[2].fill_(static_cast<double>(job.parallel->received_bytes() - received_before));

  const TraceRange trace("optimizer");
  reduce_to_parts(world, gradients);
  const Range own = own_part(world, gradients.numel());
  const auto own_gradients = gradients.slice(0, own.begin, own.end);
  totals[3].copy_(global_norm(own_gradients).square());
  world.all_reduce(totals, Reduction::Sum)->wait();
  totals[1].clamp_(1);  // where every label is ignored there is nothing to learn
  const auto loss = totals[0] / totals[1], norm = totals[3].sqrt() / totals[1];
  // A sum's last bit depends on the number of threads, which may differ: ranks would clip differently, and drift apart.
  auto common = at::stack({norm.nan_to_num(), skip_reason(training.spikes, loss, norm)});
  world.all_reduce(common, Reduction::Maximum)->wait();
  const auto skip = (common[1] != not_skipped).to(at::kFloat).unsqueeze(0);
  own_gradients.mul_(clip_factor(common[0], config.optimizer.clip_norm) / totals[1]);
  started.learning_rate_ = learning_rate(config.optimizer, step, config.training.steps);
  if (!config.parallel.shard_optimizer) gather_parts(world, gradients);
  if (training.before_update) training.before_update();
  training.optimizer->update(started.learning_rate_, skip);
  if (config.parallel.shard_optimizer) gather_parts(world, parameters.values());

  started.numbers_ = on_the_way_to_host(at::stack({loss, norm, totals[2], common[1]}));
  started.clock_->stop();
  training.progress.step = step;
  training.validation_loss.reset();
  started.tokens_ = tokens_of_step(job, training.progress.samples);
  training.progress.samples += config.training.batch_size;
  training.progress.tokens += started.tokens_;
  return started;
}

}  // namespace longnet
