#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numbers>
#include <set>

#include "core/error.h"
#include "distributed/agreement.h"
#include "launch/commands/commands.h"
#include "launch/output/peak_memory.h"
#include "launch/output/result_file.h"
#include "launch/output/writable_folder.h"
#include "launch/training/evaluation.h"
#include "launch/training/resume.h"

namespace longnet {
namespace {

namespace fs = std::filesystem;

const char* bits_name(DataType type) {
  switch (type) {
    case DataType::Text:
      return "bits/byte";
    case DataType::Fasta:
      return "bits/base";
    case DataType::Tokens:
    case DataType::Examples:
    case DataType::Series:
      return "bits/token";
  }
  return "";
}

/// The training length, a half, a quarter and an eighth of it; examples have lengths of their own.
std::vector<std::int64_t> default_contexts(const DataConfig& data) {
  if (data.type == DataType::Examples) return {data.sequence_length};
  std::vector<std::int64_t> contexts;
  for (const std::int64_t part : {8, 4, 2, 1}) {
    if (data.sequence_length / part > 0) contexts.push_back(data.sequence_length / part);
  }
  return contexts;
}

/// `key` is where they come from.
void check_contexts(const Job& job, const std::vector<std::int64_t>& contexts, const std::string& key) {
  const DataConfig& data = job.configuration.data;
  for (const std::int64_t context : contexts) {
    if (data.type == DataType::Examples && context != data.sequence_length) {
      throw ConfigError("--contexts: examples are evaluated whole");
    }
    job.specification.warning(context);  // throws for a length that cannot work
    require_held_out(job, context, key);
  }
}

void print_header(const Job& job, const std::string& checkpoint) {
  std::printf("%s on held-out data\n%10s %12s %10s", checkpoint.c_str(), "context",
              job.specification.predicts_tokens ? "tokens" : "labels", "loss");
  if (job.specification.predicts_tokens) {
    std::printf(" %12s %12s", "perplexity", bits_name(job.configuration.data.type));
  }
  for (const std::string& metric : job.specification.metrics) std::printf(" %18s", metric.c_str());
  std::printf("\n");
}

void print_line(const Job& job, std::int64_t context, const EvaluationResult& result) {
  std::printf("%10lld %12lld %10.4f", static_cast<long long>(context), static_cast<long long>(result.labels),
              result.loss);
  if (job.specification.predicts_tokens) {
    std::printf(" %12.4f %12.4f", std::exp(result.loss), result.loss / std::numbers::ln2);
  }
  for (const double metric : result.metrics) std::printf(" %18.4f", metric);
  std::printf("\n");
  std::fflush(stdout);
}

/// Throws DivergenceError, on all ranks, for a loss that is no number.
void require_number(std::int64_t context, const EvaluationResult& result) {
  const std::string where = "the loss at the context length " + std::to_string(context);
  if (result.labels == 0) throw AgreedError(DataError(where + ": the held-out data hold no label that counts"));
  if (std::isfinite(result.loss)) return;
  throw AgreedError(DivergenceError(where + " is not finite: the weights are not, or they overflow " +
                                    "in this precision; evaluate an earlier checkpoint (--checkpoint)"));
}

/// Refuses what write_outputs could not write, before there is anything to lose.
void check_outputs(const Job& job, std::int64_t length, std::int64_t sequences, const fs::path& folder) {
  require_writable_folder(folder, "--outputs");
  const Dataset& data = *job.data.validation;
  std::set<std::string> names;
  for (std::int64_t index = 0; index < std::min(data.count(length), sequences); ++index) {
    const std::string name = data.name(data.evaluation_sequence(index, length));
    if (job.mesh.is_first()) require_replaceable(folder / (name + ".safetensors"), "--outputs");
    if (names.insert(name).second) continue;
    throw ConfigError("--outputs: two sequences would be written to " + (folder / name).string() +
                      ".safetensors; name no file of the held-out data twice");
  }
}

/// Writes what the model says about each sequence into a file of the sequence's name.
void write_outputs(Job& job, std::int64_t length, std::int64_t sequences, const fs::path& folder) {
  for_each_sequence(job, length, sequences, [&](const SequencePlace& place, const Batch& batch, const Pass& pass) {
    const auto outputs = job.model->outputs(batch, pass);
    if (!batch.shard.is_first()) return;
    std::vector<NamedTensor> tensors;
    tensors.reserve(outputs.size());
    for (const auto& [name, tensor] : outputs) tensors.emplace_back(name, tensor.select(0, 0).to(at::kCPU));
    const fs::path file = folder / (job.data.validation->name(place) + ".safetensors");
    fs::create_directories(file.parent_path());
    write_result(file, tensors);
  });
  job.mesh.world->barrier();
  if (job.mesh.is_first()) std::printf("outputs of every sequence: %s\n", folder.c_str());
}

/// How long the evaluation took, and the memory of the rank that needed most. Collective.
void print_cost(const Job& job, std::chrono::steady_clock::time_point begin) {
  auto bytes = at::full({1}, peak_memory_bytes(job.device), at::kLong);
  job.mesh.world->all_reduce(bytes, Reduction::Maximum)->wait();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (!job.mesh.is_first()) return;
  std::printf("%.1f s, largest rank %.0f MiB\n", seconds.count(), bytes.item<double>() / (1 << 20));
}

}  // namespace

int eval(std::unique_ptr<Communicator> world, const EvalOptions& options) {
  Job job = start_job(std::move(world), options);
  const auto contexts = options.contexts.empty() ? default_contexts(job.configuration.data) : options.contexts;
  const auto sequences = [&](std::int64_t context) {
    return options.tokens > 0 ? (options.tokens - 1) / context + 1 : std::numeric_limits<std::int64_t>::max();
  };
  const bool trainable = job.specification.trainable, writes = !trainable || !options.outputs.empty();
  const auto folder = options.outputs.empty() ? fs::path(job.configuration.run) / "outputs" : fs::path(options.outputs);
  agree(*job.mesh.world, [&] {
    check_contexts(job, contexts, options.contexts.empty() ? "data.sequence_length" : "--contexts");
    if (writes) check_outputs(job, contexts.back(), sequences(contexts.back()), folder);
  });
  const auto checkpoint = restore_weights(job, options.checkpoint, options.allowed_changes);
  print_warnings(job);

  const auto begin = std::chrono::steady_clock::now();
  const bool first = job.mesh.is_first();
  if (first && trainable) print_header(job, checkpoint);
  for (const std::int64_t context : contexts) {
    if (!trainable) break;
    const auto result = evaluate(job, context, sequences(context));
    require_number(context, result);
    if (first) print_line(job, context, result);
  }
  if (writes) write_outputs(job, contexts.back(), sequences(contexts.back()), folder);
  print_cost(job, begin);
  return 0;
}

}  // namespace longnet
