#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace longnet {

/// Keeps a run folder to one job: a file `lock` that says which process of which host has it, and a number in it that
/// grows while that job lives.
///
/// A lock whose process is known to be gone (same host, same boot, same process namespace) is taken over at once; so is a
/// file that no job can have written. Of any other the number is watched for `patience`: if it stands still, its job is
/// gone. No two hosts' clocks are compared.
/// What is assumed of the file system: that a file can be created exclusively, and that a file which is opened anew
/// shows what another host wrote `patience` ago (NFS from version 3 on does both).
class RunLock {
 public:
  struct Settings {
    std::chrono::milliseconds period{std::chrono::seconds(5)};     ///< of the number's growth
    std::chrono::milliseconds patience{std::chrono::seconds(20)};  ///< without growth
    std::chrono::milliseconds writing{std::chrono::seconds(1)};    ///< from the making of a lock to its being written
    std::function<void(const std::string&)> say;                   ///< tells the user something
  };

  /// Throws ConfigError when another job has the folder. Where the lock cannot be written, because the disk is full, the
  /// folder is not locked, which is said.
  RunLock(const std::filesystem::path& run, Settings settings);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  bool is_held() const { return held_; }

  /// Lets other jobs have the folder. For any thread, while no other uses this object.
  void give_back();

  /// Throws FileError when another job has taken the folder over, which this one cannot have heard while it was stopped. A lock that
  /// somebody has removed is made again, and so is the folder, which is said. `now`: looks even if it has just looked. Returns
  /// whether the folder is a new one.
  bool require_held(bool now = false);

 private:
  using Clock = std::chrono::steady_clock;

  void take();
  void require_free(const std::string& found) const;
  /// Whether the lock becomes another than `found`.
  bool changes_within(std::chrono::milliseconds time, const std::string& found) const;
  bool create();
  bool is_ours() const;
  void grow();
  std::string content(std::int64_t number) const;

  std::filesystem::path path_;
  std::string folder_;  ///< which it is, whatever its name
  Settings settings_;
  std::string owner_;  ///< what the lock says of this job, in JSON, without the number
  bool held_ = false;
  Clock::time_point looked_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;  ///< last: it uses all others
};

}  // namespace longnet
