#!/usr/bin/env bash
# Sets the machine up, builds, and runs all tests. Arguments go to ctest, for example: ./tests/run.sh -R attention
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/setup.sh

cmake --preset release >/dev/null
cmake --build --preset release
# Tests with several ranks share the cores, so ctest runs one at a time.
ctest --preset release "$@"
