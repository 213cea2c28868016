// The main of tests that run as one process.

#include <gtest/gtest.h>

#include "tests/device.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longnet::test::can_run() ? RUN_ALL_TESTS() : longnet::test::skipped;
}
