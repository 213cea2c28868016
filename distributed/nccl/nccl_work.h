#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAEvent.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/nccl/nccl_handle.h"
#include "distributed/watchdog.h"

namespace longnet::nccl {

/// One launch on the communication stream: an operation, or several that were grouped. The watchdog sees it.
class Launch : public WatchedOperation {
 public:
  Launch(std::string name, c10::Device gpu) : name_(std::move(name)), gpu_(gpu) {}

  void add(const std::shared_ptr<Handle>& handle) { handles_.push_back(handle); }
  const std::vector<std::shared_ptr<Handle>>& handles() const { return handles_; }

  void record_start(const c10::cuda::CUDAStream& stream) { started_.record(stream); }
  void record_end(const c10::cuda::CUDAStream& stream) { done_.record(stream); }
  /// Makes a stream wait for the end.
  void block(const c10::cuda::CUDAStream& stream) { done_.block(stream); }
  bool done() { return done_.query(); }

  std::string name() const override { return name_; }
  State state() override;
  std::optional<std::string> error() override;
  void abort() override;

 private:
  std::string name_;
  c10::Device gpu_;
  std::vector<std::shared_ptr<Handle>> handles_;
  at::cuda::CUDAEvent started_, done_;
};

class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<Launch> launch, std::vector<at::Tensor> tensors)
      : launch_(std::move(launch)), tensors_(std::move(tensors)) {}
  ~NcclWork() override;

  /// What remains to be done, on the current stream, once the data are there.
  void then(std::function<void()> completion) { completion_ = std::move(completion); }

  bool poll() override { return launch_->done(); }
  void wait() override;

 private:
  std::shared_ptr<Launch> launch_;
  std::vector<at::Tensor> tensors_;  ///< their memory must not be given away before the current stream waits
  std::function<void()> completion_;
};

}  // namespace longnet::nccl
