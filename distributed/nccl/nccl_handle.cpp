#include "distributed/nccl/nccl_handle.h"

#include <atomic>
#include <thread>
#include <utility>

#include "core/error.h"
#include "distributed/nccl/nccl_error.h"

namespace longnet::nccl {

ncclComm_t Handle::get() const {
  const std::lock_guard lock(mutex_);
  if (communicator_ == nullptr) throw CommunicationError("NCCL: the communicator has been given up");
  return communicator_;
}

void Handle::abort() {
  const std::lock_guard lock(mutex_);
  if (ncclComm_t communicator = std::exchange(communicator_, nullptr)) ncclCommAbort(communicator);
}

namespace {

/// Lets a little time go by between two looks: at first it is a matter of microseconds.
void pause(int round) {
  if (round > 1000) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

[[noreturn]] void fail_late(const char* call, std::chrono::milliseconds timeout) {
  throw CommunicationError(std::string("NCCL: ") + call + " was not done within " +
                           std::to_string(std::chrono::duration<double>(timeout).count()) +
                           " s: is every rank there, and can they reach each other (NCCL_SOCKET_IFNAME)?");
}

}  // namespace

void Handle::settle(const char* call, std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  ncclResult_t state = ncclInProgress;
  for (int round = 0;; ++round) {
    LONGNET_NCCL(ncclCommGetAsyncError(get(), &state));
    if (state == ncclSuccess) return;
    if (state != ncclInProgress) check(state, call);
    if (std::chrono::steady_clock::now() > end) break;
    pause(round);
  }
  abort();
  fail_late(call, timeout);
}

std::shared_ptr<Handle> make_handle(const char* call, std::chrono::milliseconds timeout,
                                    const std::function<void(ncclComm_t* place)>& make) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  auto place = std::make_unique<std::atomic<ncclComm_t>>(nullptr);
  static_assert(sizeof(std::atomic<ncclComm_t>) == sizeof(ncclComm_t));
  make(reinterpret_cast<ncclComm_t*>(place.get()));
  for (int round = 0; place->load() == nullptr; ++round) {
    if (std::chrono::steady_clock::now() > end) {
      static_cast<void>(place.release());  // NCCL may still write there
      fail_late(call, timeout);
    }
    pause(round);
  }
  auto handle = std::make_shared<Handle>(place->load());
  handle->settle(call, timeout);
  return handle;
}

std::optional<std::string> Handle::error() const {
  const std::lock_guard lock(mutex_);
  if (communicator_ == nullptr) return {};
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &state);
  if (asked != ncclSuccess) return ncclGetErrorString(asked);
  if (state == ncclSuccess || state == ncclInProgress) return {};
  return ncclGetErrorString(state);
}

}  // namespace longnet::nccl
