#pragma once

#include <nccl.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace longnet::nccl {

/// An ncclComm_t that is freed once, whoever comes first: its owner or the watchdog. Freeing is ncclCommAbort, which
/// asks no other rank; ncclCommDestroy would.
class Handle {
 public:
  /// Takes the communicator over.
  explicit Handle(ncclComm_t communicator) : communicator_(communicator) {}
  ~Handle() { abort(); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  /// Throws CommunicationError when it has been given up.
  ncclComm_t get() const;

  void abort();

  /// Waits until NCCL has accepted the last call: a non-blocking communicator may still be connecting to its peers.
  /// Throws CommunicationError when that fails or takes longer than `timeout`; the handle is then given up.
  void settle(const char* call, std::chrono::milliseconds timeout);

  /// What NCCL says has gone wrong since, if anything.
  std::optional<std::string> error() const;

 private:
  mutable std::mutex mutex_;
  ncclComm_t communicator_;
};

/// The communicator that `make` asks NCCL for. NCCL may return before it exists, and fills the place in from a thread
/// of its own. Throws CommunicationError when that fails or takes longer than `timeout`.
std::shared_ptr<Handle> make_handle(const char* call, std::chrono::milliseconds timeout,
                                    const std::function<void(ncclComm_t* place)>& make);

}  // namespace longnet::nccl
