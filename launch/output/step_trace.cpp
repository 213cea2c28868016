#include "launch/output/step_trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <set>

#include "core/error.h"

namespace longnet {
namespace {

using torch::profiler::impl::ActivityType;

const std::set<ActivityType>& activities() {
  static const std::set<ActivityType> all{ActivityType::CPU, ActivityType::CUDA};
  return all;
}

}  // namespace

StepTrace::StepTrace() {
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  torch::autograd::profiler::prepareProfiler(config, activities());
  torch::autograd::profiler::enableProfiler(config, activities());
}

StepTrace::~StepTrace() {
  if (recording_) torch::autograd::profiler::disableProfiler();
}

void StepTrace::write(const std::filesystem::path& path) {
  const auto recorded = torch::autograd::profiler::disableProfiler();
  recording_ = false;
  std::filesystem::remove(path);
  recorded->save(path.string());
  if (!std::filesystem::exists(path)) throw Error(path.string() + ": the trace could not be written");
}

}  // namespace longnet
