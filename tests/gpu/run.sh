#!/usr/bin/env bash
# Runs every GPU test and then the benchmarks, in less than 8 minutes, and prints one table. Runs from a pack that
# tests/gpu/pack.sh has made: the folder that this file is in, or build/gpu-pack of the source tree.
#
#   ./tests/gpu/run.sh [FOLDER for logs and report; default: gpu-report]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pack=$here
[[ -d $pack/bin ]] || pack=$(cd "$here/../.." && pwd)/build/gpu-pack
if [[ ! -x $pack/bin/longnet ]]; then
  echo "run: there is no pack; make one with tests/gpu/pack.sh on a machine that has the build's packages" >&2
  exit 2
fi
out=${1:-gpu-report}
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "$out"/run-* "$out"/*.log "$out"/*.tsv "$out"/table.txt   # of an earlier run: the table must not show them

torch=$(python3 -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torch").origin).parent)') || exit 2
libraries=$pack/lib:$torch/lib
for folder in "$torch"/../nvidia/*/lib; do libraries+=:$folder; done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OPAL_PREFIX=$pack/openmpi OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# One host, no remote shell, no ptrace between ranks; more ranks than GPUs, maybe than cores.
export OMPI_MCA_plm=isolated OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_mpi_yield_when_idle=1 LONGNET_SOURCE_DIR=$pack
bin=$pack/bin
started=$SECONDS
budget=460   # seconds, of 8 minutes

# step NAME SECONDS COMMAND...: runs a command into a log of its own and notes how it ended.
step() {
  local name=$1 limit=$2 code begin=$SECONDS
  shift 2
  local left=$((budget - (SECONDS - started)))
  if ((left < 5)); then
    printf '%s\t%s\t%s\n' "$name" "not run (no time left)" 0 | tee -a "$out/steps.tsv"
    return 1
  fi
  timeout --kill-after=5 $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
  code=$?
  local result=failed
  if ((code == 0)); then result=passed; elif ((code == 77)); then result=skipped; elif ((code == 124 || code == 137)); then result="timed out"; fi
  printf '%s\t%s\t%s\n' "$name" "$result" $((SECONDS - begin)) | tee -a "$out/steps.tsv"
  ((code == 0))
}
mpirun=("$pack/openmpi/bin/mpirun" --oversubscribe --bind-to none -np)

# Tests.
export LONGNET_TEST_DEVICE=cuda
step gpu 120 "$bin/gpu"
step core_attention 90 "$bin/core_attention"
for n in 1 2 4; do step "communicator.mpi.$n" 60 "${mpirun[@]}" "$n" "$bin/distributed_communicator"; done
LONGNET_TEST_COMMUNICATOR=nccl step communicator.nccl.1 60 "$bin/distributed_communicator"
for n in 1 2 4; do step "attention.mpi.$n" 60 "${mpirun[@]}" "$n" "$bin/distributed_attention"; done
# Every test makes an NCCL communicator of its own, so only some.
GTEST_FILTER='Attention/Transports*:Aligned*:Attention/AcrossRanks.MatchesTheDefinition/?' \
  LONGNET_TEST_COMMUNICATOR=nccl step attention.nccl.1 60 "$bin/distributed_attention"
for n in 1 2 4; do step "training_step.mpi.$n" 90 "${mpirun[@]}" "$n" "$bin/launch_training_step"; done
step models.mpi.2 60 "${mpirun[@]}" 2 "$bin/launch_models"
unset LONGNET_TEST_DEVICE

# The quickstart on the CPU and on the GPU, alone over NCCL and with two ranks that share it.
quick=(train "$pack/configs/quickstart.yaml" --set "data.train=[$pack/text]" --set training.steps=30
  --set training.evaluate_every_steps=0 --set logging.tensorboard=false)
step quickstart.cpu 90 "$bin/longnet" "${quick[@]}" --set "run=$out/run-cpu" --set parallel.device=cpu
step quickstart.gpu 60 "$bin/longnet" "${quick[@]}" --set "run=$out/run-gpu" --set parallel.device=cuda
step quickstart.shared 60 "${mpirun[@]}" 2 "$bin/longnet" "${quick[@]}" \
  --set "run=$out/run-shared" --set parallel.device=cuda --set parallel.share_gpu=true
step quickstart.compare 20 python3 "$pack/report.py" compare "$out"

# Measurements.
step bench.attention 100 "$bin/bench_gpu_attention"
python3 "$pack/report.py" tokens "$out/tokens.bin" 4200000
paper=(train "$pack/configs/paper-125m.yaml" --set data.type=tokens --set "data.train=[$out/tokens.bin]"
  --set parallel.device=cuda --set logging.tensorboard=false --set optimizer.warmup_steps=2)
step bench.training 60 "$bin/longnet" "${paper[@]}" --set "run=$out/run-paper" --set training.recompute=false \
  --set training.batch_size=2 --set training.steps=8
for length in 262144 524288 1048576 1572864 2097152; do
  step "bench.length.$length" 60 "$bin/longnet" "${paper[@]}" --set "run=$out/run-$length" --set training.batch_size=1 \
    --set training.steps=2 --set data.sequence_length=$length || break
done

rm -rf "$out"/run-*/checkpoints "$out/tokens.bin"
python3 "$pack/report.py" table "$out" | tee "$out/table.txt"
! grep -qE $'\t(failed|timed out)\t' <(grep -v bench.length "$out/steps.tsv")
