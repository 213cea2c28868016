#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace longnet {

/// Watches calls that cannot be given up once they hang, as those that start and end MPI.
class Deadline {
 public:
  /// `on_expiry` is called from another thread, with what was armed, when that was not disarmed in time.
  Deadline(std::chrono::milliseconds time, std::function<void(const std::string& what)> on_expiry);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  void arm(std::string what);
  void disarm();

 private:
  void watch();

  std::chrono::milliseconds time_;
  std::function<void(const std::string&)> on_expiry_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string what_;  ///< empty: nothing is watched
  std::chrono::steady_clock::time_point until_;
  bool ending_ = false;
  std::thread thread_;  ///< last: it uses all others
};

}  // namespace longnet
