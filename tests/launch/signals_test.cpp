// Signals as wishes. What a second interrupt does is tested on the program: it ends the process.

#include "launch/job/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace longnet {
namespace {

/// Whether a wish is seen within some seconds.
bool sees_a_wish(SignalWatch& signals) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    if (signals.requested()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(SignalWatch, TurnsEachSignalIntoAWish) {
  for (const int signal : {SIGUSR1, SIGTERM, SIGHUP, SIGINT}) {
    SignalWatch signals;
    signals.collect_wishes();
    EXPECT_FALSE(signals.requested());
    ::kill(::getpid(), signal);
    EXPECT_TRUE(sees_a_wish(signals)) << signal;
    EXPECT_TRUE(signals.requested()) << "and it stays one";
  }
}

TEST(SignalWatch, LeavesIgnoredWhatNohupIgnores) {
  std::signal(SIGHUP, SIG_IGN);
  {
    SignalWatch signals;
    signals.collect_wishes();
    ::kill(::getpid(), SIGHUP);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_FALSE(signals.requested());
    ::kill(::getpid(), SIGUSR1);
    EXPECT_TRUE(sees_a_wish(signals));
  }
  std::signal(SIGHUP, SIG_DFL);
}

TEST(SignalWatch, HoldsASignalOfAnyThread) {
  SignalWatch signals;
  signals.collect_wishes();
  std::thread([] { ::kill(::getpid(), SIGUSR1); }).join();
  EXPECT_TRUE(sees_a_wish(signals));
}

TEST(SignalWatch, HoldsASignalUntilThereIsAnAnswer) {
  SignalWatch signals;
  ::kill(::getpid(), SIGTERM);
  EXPECT_FALSE(signals.requested());
  std::atomic<int> answered = 0;
  signals.answer_with([&](int signal) { answered = signal; });
  for (int attempt = 0; attempt < 1000 && answered == 0; ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(answered, SIGTERM);
  signals.collect_wishes();
  EXPECT_FALSE(signals.requested()) << "it has had its answer";
}

}  // namespace
}  // namespace longnet
