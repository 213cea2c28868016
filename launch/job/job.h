#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/configuration/configuration.h"
#include "core/data/open_data.h"
#include "core/error.h"
#include "distributed/process_mesh.h"
#include "distributed/sequence_parallel.h"
#include "models/model.h"

namespace longnet {

/// What the user gives to every command.
struct JobOptions {
  std::string config;
  std::vector<std::string> assignments;           ///< of --set
  std::vector<std::string> allowed_changes = {};  ///< of --allow-change: keys that may differ from the checkpoint's
  bool reads_data = true;
  /// Called from another thread when the GPUs can no longer reach each other; nothing will come of the job.
  std::function<void(const CommunicationError&)> on_failure = {};
};

/// What every command needs: ranks that agree on configuration, program and data, and a model on each.
struct Job {
  Configuration configuration;
  nlohmann::ordered_json resolved;  ///< the configuration with all defaults
  ProcessMesh mesh;
  Data data;  ///< none if the command reads none
  std::unique_ptr<SequenceParallel> parallel;
  ModelSpecification specification;
  std::unique_ptr<Model> model;
  std::vector<std::string> warnings;
  int threads;         ///< of this rank
  c10::Device device;  ///< where this rank computes

  at::ScalarType activation_dtype() const;
};

/// Starts a job on the ranks of `world`: reads and compares everything, then builds the model. Throws AgreedError for
/// whatever is wrong, on all ranks.
Job start_job(std::unique_ptr<Communicator> world, const JobOptions& options);

/// Prints the job's warnings on standard error, once: for commands that keep no log.
void print_warnings(const Job& job);
void print_warning(const Job& job, const std::string& warning);

}  // namespace longnet
