#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>

#include <memory>
#include <string>

#include "distributed/communicator.h"

/// Where the tests compute. The same sources run on the CPU and, with LONGNET_TEST_DEVICE=cuda, on a GPU.
namespace longnet::test {

/// What a test program returns where it needs a GPU and there is none; ctest reports it as skipped.
constexpr int skipped = 77;

/// Prints why when the tests cannot run here.
bool can_run();

/// LONGNET_TEST_DEVICE: cpu (if not set) or cuda.
c10::Device device();

/// Options of tensors there.
at::TensorOptions on(at::ScalarType dtype);

/// Whether make_world gives NCCL's communicator: LONGNET_TEST_COMMUNICATOR=nccl.
bool with_nccl();

/// The ranks of this job, over MPI or over NCCL. On a GPU, MPI lets several ranks share one.
std::unique_ptr<Communicator> make_world();

/// Settings for a program's configuration that make it compute there, too.
std::vector<std::string> device_assignments();

/// Folder of the sources, from LONGNET_SOURCE_DIR or else as it was built.
std::string source_folder();

}  // namespace longnet::test
