#!/usr/bin/env bash
# From a bare machine to a trained model: sets up, builds, trains a small decoder on 2 ranks, interrupts and resumes it,
# evaluates it on held-out text and prints a sample. Run again it reuses whatever is there.
#
#   ./launch/quickstart.sh [options of longnet train, for example --set data.train=[path/to/text]]
set -euo pipefail
cd "$(dirname "$0")/.."
config=configs/quickstart.yaml
run=runs/quickstart

say() { printf '\n== %s\n' "$*"; }

say "Setting up"
./launch/scripts/setup.sh

say "Building"
cmake --preset release >/dev/null
cmake --build --preset release --target longnet

if ! compgen -G "$run/checkpoints/step-*" >/dev/null; then
  say "Training on 2 ranks, to be interrupted after the first checkpoint"
  ./launch/mpirun.sh 2 train $config "$@" &
  job=$!
  while kill -0 $job 2>/dev/null && [[ ! -e $run/checkpoints/step-00000050 ]]; do sleep 0.5; done
  kill -TERM $job 2>/dev/null || true   # as a cluster does before its time limit
  code=0
  wait $job || code=$?
  ((code == 0 || code == 75)) || exit $code
fi

say "Training: goes on from the checkpoint"
./launch/mpirun.sh 2 train $config "$@"

say "Evaluating on held-out text"
./launch/mpirun.sh 2 eval $config --tokens 65536 "$@"

say "A sample"
./launch/mpirun.sh 1 generate $config --prompt '#include <' --tokens 300 --temperature 0.7 "$@"

say "Done. The run folder is $run: metrics.jsonl, log.txt, checkpoints/; tensorboard --logdir $run shows its curves."
