#!/usr/bin/env bash
# Sets the machine up, builds, and runs all tests. Arguments go to ctest, for example: ./tests/run.sh -R attention
set -euo pipefail
cd "$(dirname "$0")/.."
# Tests among several hosts and under Slurm need root; without it they are skipped.
if ((EUID == 0)); then ./launch/scripts/setup.sh iproute2 slurm-wlm; else ./launch/scripts/setup.sh; fi

# TensorBoard's own reader, for one test.
tensorboard=third_party/tensorboard
if [[ ! -d $tensorboard ]]; then
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $tensorboard.partial tensorboard==2.20.0
  mv $tensorboard.partial $tensorboard
fi

# Recordings of sensors, for the tests of the configurations that use them.
[[ -d data/daphnet ]] || ./launch/scripts/fetch_sensors.py

cmake --preset release >/dev/null
cmake --build --preset release
# Tests with several ranks share the cores, so ctest runs one at a time, but for those that wait more than they compute.
ctest --preset release "$@"
