#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/error.h"

namespace longnet {

/// An operation between ranks that nobody waits for on the host.
class WatchedOperation {
 public:
  virtual ~WatchedOperation() = default;

  enum class State { Waiting, Running, Done };

  virtual std::string name() const = 0;
  virtual State state() = 0;
  /// What has gone wrong with it, as the library that carries it out says.
  virtual std::optional<std::string> error() = 0;
  /// Gives it up, with everything that shares its communicator.
  virtual void abort() = 0;
};

struct WatchdogSettings {
  std::string who;  ///< of this rank: its number and host
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};
  std::chrono::milliseconds period{100};
  /// Called once, from the watchdog's thread, after all operations were given up.
  std::function<void(const CommunicationError&)> on_failure;
};

/// Watches operations from a thread of its own. One that fails, or runs longer than the time-out, would otherwise hang
/// the job: a GPU waits for ever for a rank that is gone. The time that an operation waits for its own GPU's earlier
/// work does not count.
class Watchdog {
 public:
  explicit Watchdog(WatchdogSettings settings);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Operations are numbered from 1 in the order in which they come: the same on all ranks.
  void watch(std::shared_ptr<WatchedOperation> operation);

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::int64_t number;
    std::shared_ptr<WatchedOperation> operation;
    std::optional<Clock::time_point> running_since;
  };

  void run();
  /// Looks at all operations, forgets those that are done, and returns what is wrong with the first that is not well.
  std::optional<std::string> look();
  void give_up();

  WatchdogSettings settings_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> entries_;
  std::int64_t count_ = 0;
  bool ending_ = false;
  std::thread thread_;  ///< last: it uses all others
};

}  // namespace longnet
