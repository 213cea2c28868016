#pragma once

#include <atomic>
#include <csignal>
#include <thread>

namespace longnet {

/// Turns SIGINT, SIGTERM, SIGHUP and SIGUSR1 from interruptions into a wish that the training loop reads between steps. A
/// second SIGINT ends the process at once. SIGINT and SIGHUP stay ignored where the process was started so (nohup, a
/// shell's background). Make it before MPI and LibTorch start threads, which inherit the blocked signals.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// Whether one of the signals has come since the last call.
  bool requested();

  /// Lets the signals end the process again, also one that has come: for commands that have nothing to save.
  void release();

 private:
  void watch();
  /// What is done about a signal, on the thread that waits for them.
  void receive(int signal);

  sigset_t watched_;
  std::atomic<bool> requested_ = false, released_ = false, ending_ = false;
  std::atomic<bool> interrupted_ = false;
  std::thread thread_;
};

}  // namespace longnet
