#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "core/error.h"
#include "core/files/grey_image.h"
#include "distributed/agreement.h"
#include "launch/commands/commands.h"
#include "launch/output/result_file.h"
#include "launch/output/writable_folder.h"
#include "launch/training/batch_reader.h"
#include "launch/training/resume.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* weights_name = "weights.safetensors";

/// The weights of the chosen queries in one attention, brought to all ranks: (queries, H, N) float32.
class Recorder {
 public:
  Recorder(const AttendOptions& options, Communicator& ranks) : options_(options), ranks_(ranks) {}

  void operator()(const AttentionView& view) {
    seen_.insert(view.name);
    const auto& wanted = options_.attentions;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), view.name) == wanted.end()) return;
    if (view.q.size(0) == 0 || recorded_.contains(view.name)) return;  // a missing modality; a pass made again
    std::vector<at::Tensor> rows;
    for (const std::int64_t query : options_.queries) {
      const auto own = view.attention.weights(view.q, view.k, view.shard, view.key_mask, query)[0];  // (n, H)
      auto row = at::zeros({view.shard.length, own.size(1)}, own.options().dtype(at::kFloat));
      row.slice(0, view.shard.own.begin, view.shard.own.end).copy_(own);
      ranks_.all_reduce(row, Reduction::Sum)->wait();
      rows.push_back(row.t().contiguous().to(at::kCPU));
    }
    recorded_.emplace(view.name, at::stack(rows));
  }

  const std::map<std::string, at::Tensor>& recorded() const { return recorded_; }

  void require_all() const {
    std::string names;
    for (const auto& name : seen_) names.append(names.empty() ? "" : ", ").append(name);
    for (const auto& name : options_.attentions) {
      if (!seen_.contains(name))
        throw ConfigError(c10::str("--attention ", name, ": the model's attentions are ", names));
    }
  }

 private:
  const AttendOptions& options_;
  Communicator& ranks_;
  std::set<std::string> seen_;
  std::map<std::string, at::Tensor> recorded_;
};

void check(const AttendOptions& options, const Job& job) {
  const Dataset& data = *job.data.validation;
  const std::int64_t count = data.count(job.configuration.data.sequence_length);
  if (options.sequence < 0 || options.sequence >= count) {
    throw ConfigError("--sequence " + std::to_string(options.sequence) + ": the held-out data have " +
                      std::to_string(count) + " sequences, from 0");
  }
  const auto place = data.evaluation_sequence(options.sequence, job.configuration.data.sequence_length);
  const std::int64_t length = place.length + job.specification.prefix;
  for (const std::int64_t query : options.queries) {
    if (query >= 0 && query < length) continue;
    throw ConfigError("--queries " + std::to_string(query) + ": the sequence has positions 0 to " +
                      std::to_string(length - 1));
  }
}

void write(const fs::path& folder, const std::map<std::string, at::Tensor>& recorded,
           const std::vector<std::int64_t>& queries) {
  std::vector<NamedTensor> tensors{{"queries", at::tensor(queries)}};
  for (const auto& [name, weights] : recorded) {
    tensors.emplace_back(name, weights);
    write_grey_image(folder / (name + ".png"), weights.flatten(0, 1));
    const auto strongest = weights.mean(1).argmax(-1);
    for (std::size_t index = 0; index < queries.size(); ++index) {
      std::printf("%s: position %lld looks most at position %lld\n", name.c_str(),
                  static_cast<long long>(queries[index]),
                  static_cast<long long>(strongest[static_cast<std::int64_t>(index)].item<std::int64_t>()));
    }
  }
  write_result(folder / weights_name, tensors);
  std::printf("weights and images: %s\n", folder.c_str());
}

}  // namespace

int attend(std::unique_ptr<Communicator> world, const AttendOptions& options) {
  const c10::NoGradGuard no_gradient;
  JobOptions job_options = options;
  job_options.assignments.emplace_back("parallel.sequence=auto");  // all ranks share the one sequence
  Job job = start_job(std::move(world), job_options);
  Communicator& ranks = *job.mesh.world;
  const auto folder = options.output.empty() ? fs::path(job.configuration.run) / "attention" : fs::path(options.output);
  agree(ranks, [&] {
    check(options, job);
    if (!job.mesh.is_first()) return;
    require_writable_folder(folder, "--output");
    require_replaceable(folder / weights_name, "--output");
  });
  restore_weights(job, options.checkpoint, options.allowed_changes);
  print_warnings(job);

  const Dataset& data = *job.data.validation;
  const auto place = data.evaluation_sequence(options.sequence, job.configuration.data.sequence_length);
  const auto batch = on_device(read_batch(job, data, {place}, {options.sequence}), job.device);
  Recorder recorder(options, ranks);
  Pass pass;
  pass.dtype = job.activation_dtype();
  pass.observe = [&](const AttentionView& view) { recorder(view); };
  if (job.specification.trainable) {
    job.model->loss(batch, pass);
  } else {
    job.model->outputs(batch, pass);
  }
  agree(ranks, [&] {
    recorder.require_all();
    if (job.mesh.is_first()) write(folder, recorder.recorded(), options.queries);
  });
  return 0;
}

}  // namespace longnet
