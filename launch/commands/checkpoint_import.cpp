#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "core/error.h"
#include "core/files/weights_file.h"
#include "core/training/adamw.h"
#include "distributed/agreement.h"
#include "launch/commands/commands.h"
#include "launch/job/version.h"
#include "launch/output/run_folder.h"
#include "launch/training/restore.h"

namespace longnet {
namespace {

using Weights = std::map<std::string, at::Tensor>;

bool has_prefix(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return name.starts_with(prefix); });
}

/// Removes `prefix` where every name has it.
void strip(Weights& weights, const std::string& prefix) {
  const auto has = [&](const auto& entry) { return entry.first.starts_with(prefix); };
  if (weights.empty() || !std::all_of(weights.begin(), weights.end(), has)) return;
  Weights stripped;
  for (const auto& [name, tensor] : weights) stripped.emplace(name.substr(prefix.size()), tensor);
  weights = std::move(stripped);
}

/// What a peer's file holds besides parameters: tables that follow from the configuration.
bool is_table(const std::string& name) {
  return name.ends_with(".xpos.scale") || name.ends_with("pos_embed") || name == "version" ||
         name.ends_with(".version");
}

/// A tied output projection is stored under both names.
bool is_tied_copy(const std::string& name, const at::Tensor& tensor, const Weights& weights) {
  const auto embedding = weights.find("embed_tokens.weight");
  return name == "output_projection.weight" && embedding != weights.end() && tensor.equal(embedding->second);
}

void require_positions(const Weights& weights, const nlohmann::ordered_json& model) {
  const auto scaled = [](const auto& entry) { return entry.first.ends_with(".xpos.scale"); };
  if (std::none_of(weights.begin(), weights.end(), scaled) || model.value("positions", "") == "xpos") return;
  throw ConfigError("model.positions is " + model.value("positions", "") +
                    ", but the weights come from a model with xPos; set it to xpos");
}

/// Copies the weights into the model. Throws CheckpointError for what is missing, of another shape, or left over.
void import_weights(const Weights& weights, const ImportOptions& options, ParameterSet& parameters) {
  const c10::NoGradGuard no_gradient;
  const auto fail = [&](const std::string& what) { throw CheckpointError(options.weights + ": " + what); };
  std::set<std::string> used;
  for (const Parameter& parameter : parameters.list()) {
    if (has_prefix(parameter.name, options.initialize)) continue;
    const auto found = weights.find(parameter.name);
    if (found == weights.end()) {
      fail(c10::str("the tensor ", parameter.name, " is missing; --initialize ", parameter.name,
                    " would start it anew"));
    }
    if (found->second.sizes() != parameter.value.sizes()) {
      fail(c10::str("the tensor ", parameter.name, " has the shape ", found->second.sizes(), ", but the model's is ",
                    parameter.value.sizes()));
    }
    parameter.value.detach().copy_(found->second);
    used.insert(parameter.name);
  }
  for (const auto& [name, tensor] : weights) {
    if (used.contains(name) || is_table(name) || has_prefix(name, options.ignore)) continue;
    if (is_tied_copy(name, tensor, weights)) continue;
    const std::string shape = c10::str(tensor.sizes());
    fail(c10::str("the tensor ", name, " ", shape, " has no place in the model; --ignore ", name,
                  " would leave it out"));
  }
}

}  // namespace

int checkpoint_import(std::unique_ptr<Communicator> world, const ImportOptions& options) {
  JobOptions job_options = options;
  job_options.reads_data = false;
  Job job = start_job(std::move(world), job_options);
  Communicator& ranks = *job.mesh.world;
  ParameterSet& parameters = job.model->parameters();
  const auto folder = checkpoint_folder(job.configuration.run);
  agree(ranks, [&] {
    if (!list_checkpoints(folder).empty()) {
      throw ConfigError(folder.string() + " holds checkpoints; choose another run folder (--set run=...)");
    }
    Weights weights = read_weights(options.weights);
    for (const char* prefix : {"module.", "encoder.", "decoder."}) strip(weights, prefix);
    require_positions(weights, job.resolved.at("model"));
    import_weights(weights, options, parameters);
  });
  const AdamW optimizer(parameters, {});
  const CheckpointNotes notes{static_cast<std::uint64_t>(job.configuration.training.seed), job.mesh.data_size,
                              job.mesh.sequence->size(), version, job.resolved};
  save_checkpoint(ranks, folder, {}, notes, parameters.list(), training_states(parameters, optimizer), 1);
  if (job.mesh.is_first()) {
    std::printf("%lld parameters of %s are now %s\n", static_cast<long long>(parameters.count()),
                options.weights.c_str(), list_checkpoints(folder).front().c_str());
  }
  return 0;
}

}  // namespace longnet
