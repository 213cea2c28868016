// Every exception becomes a line and an exit code.

#include "core/failure.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <stdexcept>

#include "core/error.h"

namespace longnet {
namespace {

TEST(Failure, KeepsTheProjectsOwnErrors) {
  const auto failure = failure_of(DataError("file: broken"));
  EXPECT_EQ(failure.message, "file: broken");
  EXPECT_EQ(failure.exit_code, 3);
}

TEST(Failure, NamesTheFileThatTheSystemRefuses) {
  try {
    std::filesystem::create_directory("/proc/none/here");
    FAIL();
  } catch (const std::exception& error) {
    const auto failure = failure_of(error);
    EXPECT_EQ(failure.message, "/proc/none/here: No such file or directory");
    EXPECT_EQ(failure.exit_code, 1);
  }
}

TEST(Failure, SaysWhatToDoAboutMemory) {
  for (const auto& failure :
       {failure_of(std::bad_alloc()),
        failure_of(
            c10::Error({"f", "g", 1}, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")),
        failure_of(c10::OutOfMemoryError({"f", "g", 1}, "CUDA out of memory. Tried to allocate 2 GiB"))}) {
    EXPECT_TRUE(failure.message.starts_with("out of memory")) << failure.message;
    EXPECT_NE(failure.message.find("training.micro_batch_size"), std::string::npos);
    EXPECT_EQ(failure.message.find('\n'), std::string::npos);
    EXPECT_EQ(failure.message.find("Allocator"), std::string::npos) << "that is LibTorch's word";
  }
}

TEST(Failure, SaysHowMuchMemoryWasAskedFor) {
  const std::string cpu =
      "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12 (no)";
  EXPECT_TRUE(
      failure_of(c10::Error({"f", "g", 1}, cpu)).message.starts_with("out of memory (8 bytes were asked for); "));
  const std::string gpu = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB";
  EXPECT_TRUE(failure_of(c10::OutOfMemoryError({"f", "g", 1}, gpu))
                  .message.starts_with("out of memory (2.50 GiB were asked for); "));
}

TEST(Failure, IsOneLineOfWhateverElse) {
  EXPECT_EQ(failure_of(std::logic_error("one\ntwo")).message, "internal error: one");
  EXPECT_EQ(failure_of(c10::Error({"f", "g", 1}, "shapes differ\nsomewhere")).message, "internal error: shapes differ");
}

TEST(Failure, IsOneLineWhateverItQuotes) {
  EXPECT_EQ(one_line("a\nb\x1b[31mc\r\td \xc3\xa4"), "a b [31mc  d \xc3\xa4");
}

}  // namespace
}  // namespace longnet
