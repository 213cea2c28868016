// A run folder has one job at a time, and a job that is gone does not keep it.

#include "launch/output/run_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "core/error.h"
#include "tests/temporary_folder.h"

namespace longnet {
namespace {

using namespace std::chrono_literals;

class RunLockTest : public testing::Test {
 protected:
  std::unique_ptr<RunLock> lock() {
    return std::make_unique<RunLock>(
        folder.path(),
        RunLock::Settings{10ms, patience, 200ms, [this](const std::string& line) { said.push_back(line); }});
  }
  std::string refusal() {
    try {
      lock();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string content() {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) { std::ofstream(path()) << text; }
  std::filesystem::path path() const { return folder.path() / "lock"; }

  std::chrono::milliseconds patience = 300ms;
  test::TemporaryFolder folder;
  std::vector<std::string> said;
};

TEST_F(RunLockTest, HasOneOwnerAtATime) {
  {
    const auto first = lock();
    EXPECT_TRUE(first->is_held());
    EXPECT_NE(refusal().find("is in use by process " + std::to_string(::getpid())), std::string::npos) << refusal();
    first->require_held();
  }
  EXPECT_FALSE(std::filesystem::exists(path())) << "it is given back";
  EXPECT_TRUE(lock()->is_held());
  EXPECT_TRUE(said.empty());
}

TEST_F(RunLockTest, OfAKilledProcessIsTakenAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto held = lock();
    ::raise(SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(std::filesystem::exists(path()));
  EXPECT_TRUE(lock()->is_held());
  ASSERT_EQ(said.size(), 1U);
  EXPECT_NE(said[0].find("did not end by itself (process " + std::to_string(child)), std::string::npos) << said[0];
}

TEST_F(RunLockTest, OfAnotherHostIsTakenWhenItStandsStill) {
  write(
      "{\"host\": \"far\", \"pid\": 1, \"since\": \"then\", \"space\": \"there\", \"start\": \"2\", \"job\": "
      "\"3\"}\n000\n");
  EXPECT_TRUE(lock()->is_held());
  ASSERT_EQ(said.size(), 2U);
  EXPECT_NE(said[0].find("locked by process 1 on far, since then: waiting"), std::string::npos) << said[0];
}

TEST_F(RunLockTest, OfAnotherHostIsRespectedWhileItGrows) {
  std::string text;
  {
    const auto own = lock();
    text = content();
  }
  const auto place = text.find("\"space\":\"");
  text.insert(place + 9, "another");  // what this host cannot look into
  write(text);
  std::atomic<bool> ending = false;
  std::thread far([&] {
    for (int number = 0; !ending; ++number) {
      // In place, as a lock is kept alive: it is never seen empty.
      std::fstream(path(), std::ios::in | std::ios::out) << text + std::to_string(number);
      std::this_thread::sleep_for(5ms);
    }
  });
  EXPECT_NE(refusal().find("is in use by"), std::string::npos);
  ending = true;
  far.join();
}

TEST_F(RunLockTest, OfNobodyIsTaken) {
  patience = 1h;
  for (const char* text : {"", "\n", "[]", "{\"pid\": \"x\", \"start\": 1}", "no JSON\n1\n"}) {
    write(text);
    EXPECT_TRUE(lock()->is_held()) << text;
    EXPECT_EQ(said, (std::vector<std::string>{"the run folder's last job did not end by itself (its lock is none that "
                                              "can be read)"}));
    said.clear();
  }
}

TEST_F(RunLockTest, ThatIsBeingWrittenIsRespected) {
  std::string text;
  {
    const auto own = lock();
    text = content();
  }
  write("");
  std::thread other([&] {
    std::this_thread::sleep_for(5ms);
    write(text);
  });
  EXPECT_NE(refusal().find("is in use by"), std::string::npos);
  other.join();
}

TEST_F(RunLockTest, TellsWhenItWasTakenOver) {
  const auto own = lock();
  write(
      "{\"host\": \"far\", \"pid\": 1, \"since\": \"then\", \"space\": \"there\", \"start\": \"2\", \"job\": "
      "\"3\"}\n000\n");
  std::this_thread::sleep_for(20ms);
  EXPECT_THROW(own->require_held(), FileError);
  std::this_thread::sleep_for(30ms);
  EXPECT_NE(content().find("far"), std::string::npos) << "and leaves the other's alone";
}

}  // namespace
}  // namespace longnet
