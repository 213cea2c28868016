#include "distributed/mpi/mpi_work.h"

#include <new>
#include <utility>

#include "core/error.h"
#include "distributed/mpi/mpi_error.h"

namespace longnet::mpi {

MpiWork::MpiWork(const char* name, std::shared_ptr<Group> group, std::shared_ptr<Attendance> attendance)
    : group_(std::move(group)),
      attendance_(std::move(attendance)),
      operation_{name, group_.get(), ++group_->operations} {}

MpiWork::~MpiWork() {
  // An exception has taken the place of wait(). MPI may still write: its memory must outlive this object.
  if (!done_ && !requests_.empty()) new (std::nothrow) std::vector<at::Tensor>(std::move(tensors_));
}

MPI_Request* MpiWork::add_request() {
  return &requests_.emplace_back(MPI_REQUEST_NULL);
}

bool MpiWork::poll() {
  if (done_) return true;
  int complete_flag = 0;
  LONGNET_MPI(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete_flag, MPI_STATUSES_IGNORE));
  if (complete_flag != 0) complete();
  return done_;
}

void MpiWork::wait() {
  attendance_->wait(operation_, [this] { return poll(); });
}

void MpiWork::complete() {
  done_ = true;
  for (const auto& completion : std::exchange(completions_, {})) completion();
  tensors_.clear();
}

}  // namespace longnet::mpi
