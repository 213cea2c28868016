#include "distributed/watchdog.h"

#include <utility>

namespace longnet {

Watchdog::Watchdog(WatchdogSettings settings) : settings_(std::move(settings)), thread_([this] { run(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::watch(std::shared_ptr<WatchedOperation> operation) {
  const std::lock_guard lock(mutex_);
  entries_.push_back({++count_, std::move(operation), {}});
}

void Watchdog::run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, settings_.period, [this] { return ending_; })) {
    if (const auto trouble = look()) {
      give_up();
      lock.unlock();
      if (settings_.on_failure) settings_.on_failure(CommunicationError(*trouble));
      return;
    }
  }
}

std::optional<std::string> Watchdog::look() {
  const auto now = Clock::now();
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto about = [&](const std::string& what) {
      return settings_.who + ": " + entry->operation->name() + ", operation number " + std::to_string(entry->number) +
             ", " + what;
    };
    if (const auto error = entry->operation->error()) return about("failed: " + *error);
    const auto state = entry->operation->state();
    if (state == WatchedOperation::State::Done) {
      entry = entries_.erase(entry);
      continue;
    }
    if (state == WatchedOperation::State::Running) {
      if (!entry->running_since) entry->running_since = now;
      if (now - *entry->running_since > settings_.timeout) {
        const auto seconds = std::chrono::duration<double>(settings_.timeout).count();
        return about("did not end within " + std::to_string(seconds) +
                     " s: another rank may be gone or stuck (parallel.timeout_seconds)");
      }
    }
    ++entry;
  }
  return {};
}

void Watchdog::give_up() {
  for (const Entry& entry : entries_) entry.operation->abort();
  entries_.clear();
}

}  // namespace longnet
