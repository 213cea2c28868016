#pragma once

#include <mpi.h>

#include <functional>
#include <vector>

#include "distributed/communicator.h"

namespace longnet::mpi {

/// MPI requests, with everything that must live until they are complete.
class MpiWork : public Work {
 public:
  MpiWork() = default;
  ~MpiWork() override;

  /// Room for one more request.
  MPI_Request* add_request();
  /// Keeps memory that a request reads or writes.
  void keep(at::Tensor tensor) { tensors_.push_back(std::move(tensor)); }
  /// What remains to be done once the data are there, after what was given before.
  void then(std::function<void()> completion) { completions_.push_back(std::move(completion)); }

  bool poll() override;
  void wait() override;

 private:
  void complete();

  std::vector<MPI_Request> requests_;
  std::vector<at::Tensor> tensors_;
  std::vector<std::function<void()>> completions_;
  bool done_ = false;
};

}  // namespace longnet::mpi
