// The main of tests that run as several ranks: every rank runs every test, and all fail if one does.

#include <gtest/gtest.h>
#include <mpi.h>

#include "distributed/mpi/mpi_environment.h"
#include "tests/device.h"

int main(int argc, char** argv) {
  const longnet::MpiEnvironment mpi(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  if (!longnet::test::can_run()) return longnet::test::skipped;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (mpi.world_rank() != 0) delete listeners.Release(listeners.default_result_printer());

  /// Prints what a rank other than 0 finds, which nobody would see otherwise.
  class Failures : public testing::EmptyTestEventListener {
    void OnTestStart(const testing::TestInfo& test) override { test_ = test.name(); }
    void OnTestPartResult(const testing::TestPartResult& result) override {  // must not ask for the current test
      if (!result.failed()) return;
      std::fprintf(stderr, "%s: %s:%d: %s\n", test_.c_str(), result.file_name(), result.line_number(),
                   result.message());
    }
    std::string test_;
  };
  if (mpi.world_rank() != 0) listeners.Append(new Failures);

  int failed = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return failed;
}
