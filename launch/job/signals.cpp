#include "launch/job/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <ctime>
#include <string_view>
#include <utility>

namespace longnet {
namespace {

void say(std::string_view line) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

/// Lets a signal do what it does to a program that knows nothing of it.
[[noreturn]] void end_by(int signal) {
  std::signal(signal, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  ::kill(::getpid(), signal);
  while (true) ::pause();
}

bool is_ignored(int signal) {
  struct sigaction action;
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

SignalWatch::SignalWatch() {
  sigemptyset(&watched_);
  for (const int signal : {SIGTERM, SIGUSR1}) sigaddset(&watched_, signal);
  for (const int signal : {SIGINT, SIGHUP}) {
    if (!is_ignored(signal)) sigaddset(&watched_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &watched_, nullptr);
  thread_ = std::thread([this] { watch(); });
}

SignalWatch::~SignalWatch() {
  ending_ = true;
  thread_.join();
}

void SignalWatch::watch() {
  const timespec while_{0, 50'000'000};
  while (!ending_) {
    const int signal = sigtimedwait(&watched_, nullptr, &while_);
    if (signal > 0) receive(signal);
  }
}

void SignalWatch::receive(int signal) {
  const std::lock_guard lock(mutex_);
  if (signal == SIGINT) ++interrupts_;
  if (answer_) {
    answer_(signal);
  } else if (interrupts_ > 1) {
    end_by(signal);
  } else {
    held_ = signal;
  }
}

void SignalWatch::answer_with(Answer answer) {
  const std::lock_guard lock(mutex_);
  answer_ = std::move(answer);
  if (held_ != 0) answer_(std::exchange(held_, 0));
}

void SignalWatch::release() {
  answer_with(end_by);
}

void SignalWatch::collect_wishes() {
  answer_with([this](int signal) { wish(signal); });
}

void SignalWatch::wish(int signal) {
  if (signal == SIGINT && interrupts_ > 1) end_by(signal);
  if (signal == SIGINT) {
    say("\nlongnet: stopping, with a checkpoint; interrupt again to stop at once\n");
  }
  requested_ = true;
}

}  // namespace longnet
