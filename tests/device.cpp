#include "tests/device.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/cuda/device.h"
#include "distributed/mpi/mpi_communicator.h"
#include "distributed/nccl/nccl_communicator.h"

namespace longnet::test {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

bool can_run() {
  if (device().is_cpu() || device_count() > 0) return true;
  std::printf("skipped: these tests need a GPU, and this process sees none\n");
  return false;
}

c10::Device device() {
  return variable("LONGNET_TEST_DEVICE") == "cuda" ? c10::Device(c10::DeviceType::CUDA, 0) : c10::Device(at::kCPU);
}

at::TensorOptions on(at::ScalarType dtype) {
  return at::TensorOptions(device()).dtype(dtype);
}

bool with_nccl() {
  return variable("LONGNET_TEST_COMMUNICATOR") == "nccl";
}

std::unique_ptr<Communicator> make_world() {
  auto world = make_mpi_world();
  if (!with_nccl()) return world;
  return make_nccl_communicator(std::move(world), {select_device(0), std::chrono::seconds(60), {}});
}

std::vector<std::string> device_assignments() {
  if (device().is_cpu()) return {"parallel.device=cpu"};
  return {"parallel.device=cuda", "parallel.share_gpu=true"};
}

std::string source_folder() {
  const auto folder = variable("LONGNET_SOURCE_DIR");
  return folder.empty() ? LONGNET_SOURCE_DIR : std::string(folder);
}

}  // namespace longnet::test
