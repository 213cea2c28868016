#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "core/error.h"
#include "core/files/weights_file.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_folder.h"
#include "launch/commands/commands.h"
#include "launch/output/run_folder.h"
#include "launch/output/run_lock.h"
#include "launch/training/resume.h"

namespace longnet {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

bool has_prefix(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return name.starts_with(prefix); });
}

/// Removes `prefix` where every name has it: false where not.
bool strip(Weights& weights, const std::string& prefix) {
  const auto has = [&](const auto& entry) { return entry.first.starts_with(prefix); };
  const auto all_have = [&](const auto& entries) { return std::all_of(entries.begin(), entries.end(), has); };
  if (weights.tensors.empty() || !all_have(weights.tensors) || !all_have(weights.unreadable)) return false;
  const auto stripped = [&](const auto& entries) {
    std::decay_t<decltype(entries)> result;
    for (const auto& [name, value] : entries) result.emplace(name.substr(prefix.size()), value);
    return result;
  };
  weights = {stripped(weights.tensors), stripped(weights.unreadable)};
  return true;
}

/// Removes what wrappers put before all names: distributed and compiled modules, a model inside another. Returns it.
std::string strip_wrappers(Weights& weights) {
  std::string stripped;
  for (bool found = true; found;) {
    found = false;
    for (const char* prefix : {"_orig_mod.", "module.", "model.", "encoder.", "decoder."}) {
      if (!strip(weights, prefix)) continue;
      stripped += prefix;
      found = true;
    }
  }
  return stripped;
}

/// What a peer's file holds besides parameters: tables that follow from the configuration.
bool is_table(const std::string& name) {
  return name.ends_with(".xpos.scale") || name.ends_with("pos_embed") || name == "version" ||
         name.ends_with(".version");
}

/// A tied output projection is stored under both names.
bool is_tied_copy(const std::string& name, const at::Tensor& tensor, const Tensors& tensors) {
  const auto embedding = tensors.find("embed_tokens.weight");
  return name == "output_projection.weight" && embedding != tensors.end() && tensor.equal(embedding->second);
}

void require_positions(const Tensors& tensors, const nlohmann::ordered_json& model) {
  const auto scaled = [](const auto& entry) { return entry.first.ends_with(".xpos.scale"); };
  if (std::none_of(tensors.begin(), tensors.end(), scaled) || model.value("positions", "") == "xpos") return;
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
    const auto found = weights.tensors.find(parameter.name);
    if (const auto unread = weights.unreadable.find(parameter.name); unread != weights.unreadable.end()) {
      fail(c10::str("the tensor ", parameter.name, " cannot be read: it is ", unread->second));
    }
    if (found == weights.tensors.end()) {
      fail(c10::str("the tensor ", parameter.name, " is missing; --initialize ", parameter.name,
                    " would start it anew"));
    }
    if (found->second.sizes() != parameter.value.sizes()) {
      fail(c10::str("the tensor ", parameter.name, " has the shape ", found->second.sizes(), ", but the model's is ",
                    parameter.value.sizes()));
    }
    if (!found->second.is_floating_point()) {
      fail(c10::str("the tensor ", parameter.name, " is of the type ", found->second.scalar_type(),
                    ", which no weight is"));
    }
    parameter.value.detach().copy_(found->second);
    if (!parameter.value.detach().isfinite().all().item<bool>()) {
      fail(c10::str("the tensor ", parameter.name, " holds values that are not finite in ",
                    parameter.value.scalar_type()));
    }
    used.insert(parameter.name);
  }
  const auto refuse = [&](const std::string& name, const std::string& shape) {
    if (used.contains(name) || is_table(name) || has_prefix(name, options.ignore)) return;
    fail(c10::str("the tensor ", name, " ", shape, " has no place in the model; --ignore ", name,
                  " would leave it out"));
  };
  for (const auto& [name, tensor] : weights.tensors) {
    if (!is_tied_copy(name, tensor, weights.tensors)) refuse(name, c10::str(tensor.sizes()));
  }
  for (const auto& [name, kind] : weights.unreadable) {
    refuse(name, "(" + kind + ")");
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
  std::unique_ptr<RunLock> lock;
  agree(ranks, [&] {
    if (!job.mesh.is_first()) return;
    std::filesystem::create_directories(folder);
    lock = std::make_unique<RunLock>(job.configuration.run, RunLock::Settings{.say = [](const std::string& line) {
                                       std::fprintf(stderr, "longnet: %s\n", line.c_str());
                                     }});
  });
  const CheckpointList list = list_checkpoints(ranks, folder);
  if (!list.checkpoints.empty() || !list.passed_over.empty() || !list.set_aside.empty()) {
    throw AgreedError(ConfigError(folder.string() + " holds checkpoints; choose another run folder (--set run=...)"));
  }
  std::string stripped;
  agree(ranks, [&] {
    Weights weights = read_weights(options.weights);
    stripped = strip_wrappers(weights);
    require_positions(weights.tensors, job.resolved.at("model"));
    import_weights(weights, options, parameters);
  });
  save_training(begin_training(job));
  if (!job.mesh.is_first()) return 0;
  if (!stripped.empty()) std::printf("left out of all names: %s\n", stripped.c_str());
  std::printf("%lld parameters of %s are now a checkpoint in %s\n", static_cast<long long>(parameters.count()),
              options.weights.c_str(), folder.c_str());
  return 0;
}

}  // namespace longnet
