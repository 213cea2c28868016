// The watchdog, with operations that do as they are told.

#include "distributed/watchdog.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace longnet {
namespace {

using namespace std::chrono_literals;

struct Operation : WatchedOperation {
  explicit Operation(std::string name_) : label(std::move(name_)) {}
  std::string name() const override { return label; }
  State state() override { return now; }
  std::optional<std::string> error() override {
    if (!broken) return {};
    return "unhandled system error";
  }
  void abort() override { aborted = true; }

  std::string label;
  std::atomic<State> now{State::Running};
  std::atomic<bool> broken{false}, aborted{false};
};

class WatchdogTest : public testing::Test {
 protected:
  WatchdogSettings settings(std::chrono::milliseconds timeout) {
    return {"rank 3 on node7", timeout, 1ms, [this](const CommunicationError& error) {
              code = error.exit_code();
              failure.set_value(error.what());
            }};
  }

  std::promise<std::string> failure;
  std::future<std::string> failed = failure.get_future();
  int code = 0;
};

TEST_F(WatchdogTest, NamesTheOperationThatTakesTooLong) {
  const auto first = std::make_shared<Operation>("all-gather"), second = std::make_shared<Operation>("reduce-scatter");
  first->now = Operation::State::Done;
  Watchdog watchdog(settings(50ms));
  watchdog.watch(first);
  watchdog.watch(second);
  ASSERT_EQ(failed.wait_for(10s), std::future_status::ready);
  const std::string line = failed.get();
  EXPECT_EQ(line.find("rank 3 on node7: reduce-scatter, operation number 2, did not end within 0.05"), 0U) << line;
  EXPECT_EQ(code, 6);
  EXPECT_TRUE(second->aborted);
  EXPECT_FALSE(first->aborted);
}

TEST_F(WatchdogTest, DoesNotCountTheTimeBeforeAnOperationRuns) {
  const auto operation = std::make_shared<Operation>("all-gather");
  operation->now = Operation::State::Waiting;
  Watchdog watchdog(settings(20ms));
  watchdog.watch(operation);
  EXPECT_EQ(failed.wait_for(200ms), std::future_status::timeout) << "its GPU is still at earlier work";
  operation->now = Operation::State::Running;
  EXPECT_EQ(failed.wait_for(10s), std::future_status::ready);
}

TEST_F(WatchdogTest, TellsWhatTheLibrarySaysAndGivesAllUp) {
  const auto waiting = std::make_shared<Operation>("exchange"), broken = std::make_shared<Operation>("all-reduce");
  Watchdog watchdog(settings(1h));
  watchdog.watch(waiting);
  watchdog.watch(broken);
  broken->broken = true;
  ASSERT_EQ(failed.wait_for(10s), std::future_status::ready);
  EXPECT_EQ(failed.get(), "rank 3 on node7: all-reduce, operation number 2, failed: unhandled system error");
  EXPECT_TRUE(waiting->aborted);
  EXPECT_TRUE(broken->aborted);
}

TEST_F(WatchdogTest, IsQuietWhileAllGoesWell) {
  {
    Watchdog watchdog(settings(1h));
    for (int i = 0; i < 100; ++i) {
      const auto operation = std::make_shared<Operation>("exchange");
      watchdog.watch(operation);
      operation->now = Operation::State::Done;
    }
  }
  EXPECT_EQ(failed.wait_for(0s), std::future_status::timeout);
}

}  // namespace
}  // namespace longnet
