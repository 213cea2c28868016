#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <functional>
#include <memory>

#include "core/error.h"
#include "distributed/communicator.h"

namespace longnet {

struct NcclSettings {
  c10::Device gpu;
  std::chrono::milliseconds timeout;  ///< of an operation, and of setting a communicator up
  /// Called from another thread when an operation failed or ran into the time-out; the message names rank, host,
  /// operation and its number. The GPU's work has been given up: the process cannot go on.
  std::function<void(const CommunicationError&)> on_failure;
};

/// The ranks of `host`, each with a GPU of its own, as a communicator for tensors on these GPUs. Host tensors go to
/// `host`, which it owns, as do barrier() and split_by_host(). Collective. Throws CommunicationError when NCCL does not
/// come up in time, or when the NCCL that this process loaded is not the version that longnet was built with.
///
/// Operations run on a stream of their own, of high priority. They begin when the current stream has come to where they
/// were called, and wait() makes the current stream wait for them: the host never waits. Tensors are kept until then.
/// Handles are freed without a word to other ranks, so all ranks must have finished before the first one lets go: call
/// barrier() after the last result has been read.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host, const NcclSettings& settings);

}  // namespace longnet
