#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <mutex>
#include <thread>

namespace longnet {

/// Holds SIGINT, SIGTERM, SIGHUP and SIGUSR1 until the program knows how to answer them, and answers them then from a
/// thread of its own. A second SIGINT ends the process at once, unless the answer is another. SIGINT and SIGHUP stay
/// ignored where the process was started so (nohup, a shell's background). Make it before MPI and LibTorch start
/// threads, which inherit the blocked signals.
class SignalWatch {
 public:
  using Answer = std::function<void(int signal)>;

  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// Signals are answered so from now on, and so is one that has come and had no answer.
  void answer_with(Answer answer);

  /// Signals end the process, as if it knew nothing of them: for commands that have nothing to save.
  void release();

  /// Signals are a wish that the training loop reads between steps.
  void collect_wishes();

  /// Whether there was a wish.
  bool requested() const { return requested_; }

 private:
  void watch();
  /// What is done about a signal, on the thread that waits for them.
  void receive(int signal);
  void wish(int signal);

  sigset_t watched_;
  std::mutex mutex_;    ///< of the answer, and while one is given
  Answer answer_;       ///< none: the signal is held
  int held_ = 0;        ///< the signal that has no answer yet; 0: none
  int interrupts_ = 0;  ///< SIGINTs so far
  std::atomic<bool> requested_ = false, ending_ = false;
  std::thread thread_;
};

}  // namespace longnet
