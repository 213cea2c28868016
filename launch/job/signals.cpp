#include "launch/job/signals.h"

#include <pthread.h>

#include <ctime>

namespace longnet {

SignalWatch::SignalWatch() {
  sigemptyset(&watched_);
  sigaddset(&watched_, SIGUSR1);
  sigaddset(&watched_, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &watched_, nullptr);
}

bool SignalWatch::requested() {
  const timespec at_once{0, 0};
  return sigtimedwait(&watched_, nullptr, &at_once) > 0;
}

void SignalWatch::release() {
  pthread_sigmask(SIG_UNBLOCK, &watched_, nullptr);
}

}  // namespace longnet
