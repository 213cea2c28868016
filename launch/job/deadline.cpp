#include "launch/job/deadline.h"

#include <utility>

namespace longnet {

Deadline::Deadline(std::chrono::milliseconds time, std::function<void(const std::string&)> on_expiry)
    : time_(time), on_expiry_(std::move(on_expiry)), thread_([this] { watch(); }) {}

Deadline::~Deadline() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Deadline::arm(std::string what) {
  {
    const std::lock_guard lock(mutex_);
    what_ = std::move(what);
    until_ = std::chrono::steady_clock::now() + time_;
  }
  wake_.notify_all();
}

void Deadline::disarm() {
  const std::lock_guard lock(mutex_);
  what_.clear();
}

void Deadline::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    if (what_.empty()) {
      wake_.wait(lock);
    } else if (wake_.wait_until(lock, until_) == std::cv_status::timeout && !what_.empty() && !ending_ &&
               std::chrono::steady_clock::now() >= until_) {
      const std::string what = std::exchange(what_, {});
      lock.unlock();
      on_expiry_(what);
      lock.lock();
    }
  }
}

}  // namespace longnet
