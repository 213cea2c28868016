#include "distributed/mpi/mpi_communicator.h"

#include <ATen/ATen.h>
#include <mpi.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <string>
#include <utility>

#include "core/error.h"
#include "distributed/message_sum.h"
#include "distributed/mpi/attendance.h"
#include "distributed/mpi/byte_type.h"
#include "distributed/mpi/mpi_error.h"
#include "distributed/mpi/mpi_work.h"

namespace longnet {
namespace {

using mpi::Attendance;
using mpi::ByteType;
using mpi::Group;
using mpi::MpiWork;

/// A tensor as MPI sees it: in host memory, pinned where it stands for one on a GPU.
at::Tensor host_memory_for(const at::Tensor& tensor) {
  if (!tensor.is_contiguous()) throw CommunicationError("an MPI operation got a tensor that is not contiguous");
  if (tensor.is_cpu()) return tensor;
  return at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
}

/// Host memory that holds the tensor's values.
at::Tensor values_on_host(const at::Tensor& tensor) {
  auto host = host_memory_for(tensor);
  if (!tensor.is_cpu()) host.copy_(tensor);
  return host;
}

/// Brings what arrived in host memory to the tensor that it was meant for.
void deliver(MpiWork& work, const at::Tensor& tensor, const at::Tensor& host) {
  if (!tensor.is_cpu()) work.then([tensor, host] { tensor.copy_(host, /*non_blocking=*/true); });
}

MPI_Datatype arithmetic_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kInt:
      return MPI_INT32_T;
    case at::kLong:
      return MPI_INT64_T;
    default:
      throw CommunicationError(std::string("MPI cannot reduce ") + c10::toString(type));
  }
}

class MpiCommunicator : public Communicator {
 public:
  /// Takes the handle over.
  MpiCommunicator(MPI_Comm handle, std::string name, std::shared_ptr<Attendance> attendance)
      : handle_(handle), group_(std::make_shared<Group>()), attendance_(std::move(attendance)) {
    LONGNET_MPI(MPI_Comm_set_errhandler(handle_, MPI_ERRORS_RETURN));
    LONGNET_MPI(MPI_Comm_rank(handle_, &rank_));
    LONGNET_MPI(MPI_Comm_size(handle_, &size_));
    group_->name = std::move(name);
    group_->ranks = ranks_in_world();
  }

  ~MpiCommunicator() override {
    // MPI_Comm_free is collective: while an exception unwinds, others may not come to it.
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Communicator> split(int color) override {
    barrier();  // MPI_Comm_split waits for ever
    MPI_Comm part = MPI_COMM_NULL;
    LONGNET_MPI(MPI_Comm_split(handle_, color, rank_, &part));
    return part_with(part, std::to_string(color));
  }

  std::unique_ptr<Communicator> split_by_host() override {
    barrier();
    MPI_Comm part = MPI_COMM_NULL;
    LONGNET_MPI(MPI_Comm_split_type(handle_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part));
    return part_with(part, "host");
  }

  void set_timeout(std::chrono::milliseconds timeout) override { attendance_->set_timeout(timeout); }

  void barrier() override {
    const auto work = begin("barrier");
    LONGNET_MPI(MPI_Ibarrier(handle_, work->add_request()));
    work->wait();
  }

  std::unique_ptr<Work> broadcast(at::Tensor data, int root) override {
    const auto host = rank_ == root ? values_on_host(data) : host_memory_for(data);
    auto work = begin("broadcast");
    const ByteType bytes = bytes_of(host);
    LONGNET_MPI(MPI_Ibcast(host.data_ptr(), bytes.count(), bytes.type(), root, handle_, work->add_request()));
    work->keep(host);
    deliver(*work, data, host);
    return work;
  }

  std::unique_ptr<Work> all_reduce(at::Tensor data, Reduction reduction) override {
    auto work = begin("all_reduce");
    const auto host = values_on_host(data);
    const bool half = data.scalar_type() == at::kBFloat16 || data.scalar_type() == at::kHalf;
    const auto sum = half ? host.to(at::kFloat) : host;  // MPI has no such types
    if (half) work->then([host, sum] { host.copy_(sum); });
    work->keep(sum);
    deliver(*work, data, host);

    const auto type = arithmetic_type(sum.scalar_type());
    const auto operation = reduction == Reduction::Sum ? MPI_SUM : MPI_MAX;
    constexpr std::int64_t most = 1 << 30;  // elements a call: MPI counts with 32 bits
    auto* base = static_cast<char*>(sum.data_ptr());
    for (std::int64_t first = 0; first < sum.numel(); first += most) {
      const int count = static_cast<int>(std::min(most, sum.numel() - first));
      auto* begin = base + first * static_cast<std::int64_t>(sum.element_size());
      LONGNET_MPI(MPI_Iallreduce(MPI_IN_PLACE, begin, count, type, operation, handle_, work->add_request()));
    }
    return work;
  }

  std::unique_ptr<Work> all_gather(at::Tensor output, at::Tensor input) override {
    const auto from = values_on_host(input), to = host_memory_for(output);
    if (to.numel() != size_ * from.numel()) throw CommunicationError("all_gather: output is not (size, input)");
    auto work = begin("all_gather");
    const ByteType bytes = bytes_of(from);
    LONGNET_MPI(MPI_Iallgather(from.data_ptr(), bytes.count(), bytes.type(), to.data_ptr(), bytes.count(), bytes.type(),
                               handle_, work->add_request()));
    work->keep(from);
    work->keep(to);
    deliver(*work, output, to);
    return work;
  }

  std::unique_ptr<Work> reduce_scatter(at::Tensor output, at::Tensor input) override {
    if (input.size(0) != size_) throw CommunicationError("reduce_scatter: input is not (size, output)");
    const auto from = values_on_host(input), to = host_memory_for(output);
    const MessageSum sum(from, rank_);
    auto work = start("reduce_scatter", sum.sends, sum.receives);
    work->then([sum, to] { sum.sum_into(to); });
    deliver(*work, output, to);
    return work;
  }

  std::unique_ptr<Work> exchange(std::vector<Message> sends, std::vector<Message> receives) override {
    return start("exchange", sends, receives);
  }

 private:
  static ByteType bytes_of(const at::Tensor& tensor) { return ByteType(static_cast<std::int64_t>(tensor.nbytes())); }

  std::unique_ptr<MpiWork> begin(const char* name) { return std::make_unique<MpiWork>(name, group_, attendance_); }

  std::unique_ptr<Communicator> part_with(MPI_Comm handle, const std::string& color) {
    const std::string name = group_->name + "." + std::to_string(++group_->splits) + ":" + color;
    return std::make_unique<MpiCommunicator>(handle, name, attendance_);
  }

  std::vector<int> ranks_in_world() const {
    MPI_Group own = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
    LONGNET_MPI(MPI_Comm_group(handle_, &own));
    LONGNET_MPI(MPI_Comm_group(MPI_COMM_WORLD, &world));
    std::vector<int> here(static_cast<std::size_t>(size_)), there(here.size());
    std::iota(here.begin(), here.end(), 0);
    LONGNET_MPI(MPI_Group_translate_ranks(own, size_, here.data(), world, there.data()));
    LONGNET_MPI(MPI_Group_free(&own));
    LONGNET_MPI(MPI_Group_free(&world));
    return there;
  }

  std::unique_ptr<MpiWork> start(const char* name, const std::vector<Message>& sends,
                                 const std::vector<Message>& receives) {
    constexpr int tag = 0;  // messages between two ranks do not overtake each other
    auto work = begin(name);
    for (const Message& message : receives) {
      const auto host = host_memory_for(message.data);
      const ByteType bytes = bytes_of(host);
      LONGNET_MPI(
          MPI_Irecv(host.data_ptr(), bytes.count(), bytes.type(), message.peer, tag, handle_, work->add_request()));
      work->keep(host);
      deliver(*work, message.data, host);
    }
    for (const Message& message : sends) {
      const auto host = values_on_host(message.data);
      const ByteType bytes = bytes_of(host);
      LONGNET_MPI(
          MPI_Isend(host.data_ptr(), bytes.count(), bytes.type(), message.peer, tag, handle_, work->add_request()));
      work->keep(host);
    }
    return work;
  }

  MPI_Comm handle_;
  int rank_ = 0;
  int size_ = 0;
  std::shared_ptr<Group> group_;
  std::shared_ptr<Attendance> attendance_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_world() {
  MPI_Comm duplicate = MPI_COMM_NULL;
  LONGNET_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &duplicate));
  return std::make_unique<MpiCommunicator>(duplicate, "world", std::make_shared<Attendance>());
}

}  // namespace longnet
