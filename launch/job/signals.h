#pragma once

#include <csignal>

namespace longnet {

/// Turns SIGUSR1 and SIGTERM from interruptions into a wish that the training loop reads between steps. Make it before
/// MPI and LibTorch start threads, which inherit the blocked signals.
class SignalWatch {
 public:
  SignalWatch();

  /// Whether one of the signals has come since the last call.
  bool requested();

  /// Lets the signals end the process again: for commands that have nothing to save.
  void release();

 private:
  sigset_t watched_;
};

}  // namespace longnet
