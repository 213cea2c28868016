#include "distributed/nccl/nccl_work.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>
#include <utility>

namespace longnet::nccl {

WatchedOperation::State Launch::state() {
  const c10::cuda::CUDAGuard guard(gpu_);  // the watchdog's thread must not take up memory on GPU 0
  if (done_.query()) return State::Done;
  return started_.query() ? State::Running : State::Waiting;
}

std::optional<std::string> Launch::error() {
  for (const auto& handle : handles_) {
    if (auto error = handle->error()) return error;
  }
  try {
    const c10::cuda::CUDAGuard guard(gpu_);
    done_.query();
    return {};
  } catch (const std::exception& error) {  // a kernel failed: CUDA reports it on whatever comes next
    return error.what();
  }
}

void Launch::abort() {
  for (const auto& handle : handles_) handle->abort();
}

NcclWork::~NcclWork() {
  if (tensors_.empty()) return;
  try {  // an exception has taken the place of wait(): only the memory's order matters now
    launch_->block(c10::cuda::getCurrentCUDAStream());
  } catch (const std::exception&) {  // CUDA is broken; the error that broke it is on its way
  }
}

void NcclWork::wait() {
  launch_->block(c10::cuda::getCurrentCUDAStream());
  if (completion_) std::exchange(completion_, {})();
  tensors_.clear();
}

}  // namespace longnet::nccl
