// What hangs is told once, what ends in time is not.

#include "launch/job/deadline.h"

#include <gtest/gtest.h>

#include <future>

namespace longnet {
namespace {

using namespace std::chrono_literals;

TEST(Deadline, TellsWhatHangs) {
  std::promise<std::string> expired;
  Deadline deadline(10ms, [&](const std::string& what) { expired.set_value(what); });
  deadline.arm("the first");
  deadline.disarm();
  deadline.arm("the second");
  EXPECT_EQ(expired.get_future().get(), "the second");
}

TEST(Deadline, LeavesAloneWhatEndsInTime) {
  bool expired = false;
  {
    Deadline deadline(30ms, [&](const std::string&) { expired = true; });
    deadline.arm("a call");
    deadline.disarm();
    std::this_thread::sleep_for(60ms);
    deadline.arm("another");
  }
  EXPECT_FALSE(expired);
}

}  // namespace
}  // namespace longnet
