#!/usr/bin/env bash
# Builds longnet with CUDA and NCCL; runs the GPU tests, which are skipped where there is no GPU, those of the operator for Python,
# those of a training step, and a short training with that build on whatever device is here: it loads other libraries than the build
# for the CPU does. tests/gpu/pack.sh and tests/gpu/run.sh are for a machine with a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
./launch/scripts/setup.sh --cuda

cmake --preset cuda >/dev/null
cmake --build --preset cuda
ctest --preset cuda --label-regex "gpu|python"
ctest --preset cuda --tests-regex "^launch_training_step.2_ranks$"

run=$(mktemp --directory)
trap 'rm -rf "$run"' EXIT
export LONGNET=$PWD/build/cuda/bin/longnet
for steps in 2 4; do   # the second time it goes on from a checkpoint, and removes the oldest
  ./launch/mpirun.sh 2 train configs/quickstart.yaml --set "run=$run/run" --set training.steps=$steps --set parallel.share_gpu=true \
    --set checkpoint.every_steps=1 --set checkpoint.keep=2
done
./launch/mpirun.sh 2 eval configs/quickstart.yaml --set "run=$run/run" --set parallel.share_gpu=true --tokens 8192
(($(wc -l <"$run/run/metrics.jsonl") == 4))
echo "cuda: the build with CUDA trains, resumes and evaluates"
