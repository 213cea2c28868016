#include "launch/job/job.h"

#include <chrono>
#include <cstdio>
#include <optional>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/nccl/nccl_communicator.h"
#include "launch/job/device_choice.h"
#include "launch/job/threads.h"
#include "launch/job/version.h"
#include "models/registry.h"

namespace longnet {
namespace {

at::TensorOptions parameters_on(c10::Device device, Precision precision) {
  return at::TensorOptions(device).dtype(precision == Precision::Float64 ? at::kDouble : at::kFloat);
}

TransportChoice transport_choice(ParallelConfig::Transport transport) {
  switch (transport) {
    case ParallelConfig::Transport::Aligned:
      return TransportChoice::Aligned;
    case ParallelConfig::Transport::Unaligned:
      return TransportChoice::Unaligned;
    case ParallelConfig::Transport::Automatic:
      return TransportChoice::Automatic;
  }
  throw Error("a transport of no known kind");
}

std::int64_t sequence_ranks(const Configuration& configuration, int ranks) {
  return configuration.parallel.sequence.value_or(ranks);
}

/// Opens the data on all ranks. The first rank goes ahead, because it may have files to convert for all.
Data open_everywhere(Communicator& world, const Configuration& configuration, const std::vector<Field>& fields) {
  std::optional<Data> data;
  const auto open = [&] {
    data.emplace(open_data(configuration.data, fields, std::filesystem::path(configuration.run) / "cache"));
  };
  agree(world, [&] {
    if (world.rank() == 0) open();
  });
  agree(world, [&] {
    if (!data) open();
  });
  require_same(world, "data", data->fingerprint);
  return std::move(*data);
}

}  // namespace

at::ScalarType Job::activation_dtype() const {
  switch (configuration.training.precision) {
    case Precision::BFloat16:
      return at::kBFloat16;
    case Precision::Float64:
      return at::kDouble;
    case Precision::Float32:
      return at::kFloat;
  }
  throw Error("a precision of no known kind");
}

Job start_job(std::unique_ptr<Communicator> world, const JobOptions& options) {
  Configuration configuration;
  ModelSpecification model;
  std::vector<std::string> warnings;
  agree(*world, [&] {
    configuration = load_configuration(options.config, options.assignments);
    model = specify_model(configuration.model);
    require_mesh(world->size(), sequence_ranks(configuration, world->size()));
    if (const auto warning = model.warning(configuration.data.sequence_length)) warnings.push_back(*warning);
  });
  const auto resolved = to_json(configuration, model.json);
  require_same(*world, "version of longnet", version);
  require_same(*world, "configuration", to_yaml(resolved));

  const DeviceChoice choice = choose_device(configuration.parallel, *world);
  const std::chrono::seconds timeout(configuration.parallel.timeout_seconds);
  world->set_timeout(timeout);
  if (choice.device.is_cuda() && !choice.shared) {
    world = make_nccl_communicator(std::move(world), {choice.device, timeout, options.on_failure});
  }
  const std::int64_t sequence = sequence_ranks(configuration, world->size());
  auto mesh = make_process_mesh(std::move(world), sequence);
  const Threads threads = set_threads(*mesh.world, configuration.parallel.threads);
  if (configuration.parallel.share_gpu && choice.device.is_cpu()) {
    warnings.emplace_back("parallel.share_gpu is passed over: the job computes on the CPU");
  }
  if (threads.warning) warnings.push_back(*threads.warning);
  auto data = options.reads_data ? open_everywhere(*mesh.world, configuration, model.fields) : Data{};
  warnings.insert(warnings.end(), data.warnings.begin(), data.warnings.end());
  auto parallel =
      std::make_unique<SequenceParallel>(*mesh.sequence, transport_choice(configuration.parallel.transport));
  auto built = model.build(*parallel, parameters_on(choice.device, configuration.training.precision),
                           static_cast<std::uint64_t>(configuration.training.seed));
  return {std::move(configuration), resolved,         std::move(mesh),     std::move(data), std::move(parallel),
          std::move(model),         std::move(built), std::move(warnings), threads.count,   choice.device};
}

void print_warnings(const Job& job) {
  for (const std::string& warning : job.warnings) print_warning(job, warning);
}

void print_warning(const Job& job, const std::string& warning) {
  if (job.mesh.is_first()) std::fprintf(stderr, "longnet: warning: %s\n", warning.c_str());
}

}  // namespace longnet
