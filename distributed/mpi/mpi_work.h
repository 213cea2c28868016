#pragma once

#include <mpi.h>

#include <functional>
#include <memory>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/mpi/attendance.h"

namespace longnet::mpi {

/// MPI requests, with everything that must live until they are complete.
class MpiWork : public Work {
 public:
  /// The next operation of `group`.
  MpiWork(const char* name, std::shared_ptr<Group> group, std::shared_ptr<Attendance> attendance);
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

  std::shared_ptr<Group> group_;
  std::shared_ptr<Attendance> attendance_;
  Operation operation_;
  std::vector<MPI_Request> requests_;
  std::vector<at::Tensor> tensors_;
  std::vector<std::function<void()>> completions_;
  bool done_ = false;
};

}  // namespace longnet::mpi
