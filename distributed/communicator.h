#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace longnet {

/// An operation on its way. Whoever starts one waits for it before touching its tensors again.
class Work {
 public:
  virtual ~Work() = default;

  /// Moves the operation on without waiting; true once it is complete.
  virtual bool poll() = 0;

  /// Returns once the results may be used: on the CPU when they are there; on a GPU at once, because the current stream
  /// waits in the place of the host.
  virtual void wait() = 0;
};

enum class Reduction { Sum, Maximum };

/// A contiguous tensor that goes to, or comes from, another rank.
struct Message {
  int peer;
  at::Tensor data;
};

/// A group of ranks that exchange tensors. All operations are collective (every rank of the group makes the same calls
/// in the same order), start without waiting, take contiguous tensors of any size, and throw CommunicationError when
/// they fail.
///
/// Implementations: distributed/mpi, over host memory, and distributed/nccl, between GPUs.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Parts the group: ranks that give the same color form a group of their own, ordered by their rank here. Waits.
  virtual std::unique_ptr<Communicator> split(int color) = 0;

  /// The group of those ranks that share this rank's host. Waits.
  virtual std::unique_ptr<Communicator> split_by_host() = 0;

  /// Waits until every rank has come here.
  virtual void barrier() = 0;

  /// How long the host waits for an operation before it fails: here, where this group was split from, and in its parts.
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;

  /// Sends root's `data` to all.
  virtual std::unique_ptr<Work> broadcast(at::Tensor data, int root) = 0;

  /// Combines `data` of all ranks, element by element, in place. bfloat16 and float16 are combined in float32.
  virtual std::unique_ptr<Work> all_reduce(at::Tensor data, Reduction reduction) = 0;

  /// output (size, ...) = the `input` (...) of every rank, in rank order.
  virtual std::unique_ptr<Work> all_gather(at::Tensor output, at::Tensor input) = 0;

  /// output (...) = the sum over ranks of their input[rank()]; input is (size, ...). Summed in output's dtype, which
  /// may be wider than input's; in rank order, unless a GPU's library sums equal dtypes in an order of its own.
  virtual std::unique_ptr<Work> reduce_scatter(at::Tensor output, at::Tensor input) = 0;

  /// Sends and receives any number of messages. Messages between two ranks arrive in the order in which both list them.
  virtual std::unique_ptr<Work> exchange(std::vector<Message> sends, std::vector<Message> receives) = 0;

  /// Starts the operations that `calls` starts, here and on groups that were split from here, as one where that is
  /// cheaper. None of them may be waited for inside.
  virtual void together(const std::function<void()>& calls) { calls(); }
};

}  // namespace longnet
