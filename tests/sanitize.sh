#!/usr/bin/env bash
# All tests of units, models and training steps under AddressSanitizer and UndefinedBehaviorSanitizer. (Threads of our own
# run under ThreadSanitizer in every build: threads_of_our_own. Training at 2 and 4 ranks runs no line that 1 and 3 do not.)
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/scripts/setup.sh
cmake --preset sanitize >/dev/null
cmake --build --preset sanitize
ctest --preset sanitize --exclude-regex '^launch_.*[.][24]_ranks' --label-exclude 'gpu|program' "$@"
