#!/usr/bin/env bash
# Runs the GPU tests, then the measurements, and prints one table of both. Runs from a pack that tests/gpu/pack.sh has made: the
# folder that this file is in, or build/gpu-pack of the source tree.
#
#   ./tests/gpu/run.sh [tests|measurements|all] [FOLDER for logs and report; default: gpu-report]
#
# tests: does it work, in less than 4 minutes; every test in a process of its own, several at a time; a failure stops nothing.
# measurements: everything that docs/performance.md shows, in less than 6 minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pack=$here
[[ -d $pack/bin ]] || pack=$(cd "$here/../.." && pwd)/build/gpu-pack
if [[ ! -x $pack/bin/longnet ]]; then
  echo "run: there is no pack; make one with tests/gpu/pack.sh on a machine that has the build's packages" >&2
  exit 2
fi
part=${1:-all}
[[ $part == tests || $part == measurements || $part == all ]] || {
  echo "run: there is no part '$part'; the parts are tests, measurements, all" >&2
  exit 2
}
out=${2:-gpu-report}
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "$out"/run-* "$out"/*.log "$out"/*.tsv "$out"/table.txt   # of an earlier run: the table must not show them

torch=$(python3 -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torch").origin).parent)') || exit 2
libraries=$pack/lib:$torch/lib
for folder in "$torch"/../nvidia/*/lib; do libraries+=:$folder; done
system_libraries=${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OPAL_PREFIX=$pack/openmpi OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# One host, no remote shell, no ptrace between ranks; more ranks than GPUs, maybe than cores.
export OMPI_MCA_plm=isolated OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none
# The machine may have plugins of another PMIx, which this one does not need.
export PMIX_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_pcompress_base_silence_warning=1
export OMPI_MCA_mpi_yield_when_idle=1 LONGNET_SOURCE_DIR=$pack OMP_NUM_THREADS=2
bin=$pack/bin
python=(env "LD_LIBRARY_PATH=$system_libraries" python3)   # the pack's libraries are for its own programs
mpirun=("$pack/openmpi/bin/mpirun" --oversubscribe --bind-to none -np)
part_begins=$SECONDS budget=0   # of the part under way, in seconds

# step NAME SECONDS COMMAND...: runs a command into a log of its own and notes how it ended.
step() {
  local name=$1 limit=$2 code begin=$SECONDS
  shift 2
  local left=$((budget - (SECONDS - part_begins)))
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

# beside NAME SECONDS COMMAND...: a step beside others, at most six at a time.
beside() {
  while (($(jobs -rp | wc -l) >= 6)); do wait -n || true; done
  step "$@" &
}

# The names of a program's tests, one a line, as --gtest_filter takes them.
names_of_tests() {
  "$1" --gtest_list_tests 2>/dev/null | awk '/^[^ ].*\.$/ {suite = $1} /^ / {print suite $1}'
}

run_tests() {
  part_begins=$SECONDS budget=230
  export LONGNET_TEST_DEVICE=cuda
  step starts 60 "$bin/gpu" --gtest_filter='Dropout.*'   # loads the libraries into the page cache, alone
  for name in $(names_of_tests "$bin/gpu"); do
    beside "gpu.$name" 60 "$bin/gpu" --gtest_filter="$name"
  done
  # The longest first.
  for shard in 0 1; do
    GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=$shard beside "models.mpi.2.$shard" 150 "${mpirun[@]}" 2 "$bin/launch_models"
  done
  beside core_attention 90 "$bin/core_attention"
  for n in 1 2 4; do
    beside "communicator.mpi.$n" 60 "${mpirun[@]}" "$n" "$bin/distributed_communicator"
    beside "attention.mpi.$n" 60 "${mpirun[@]}" "$n" "$bin/distributed_attention"
    beside "training_step.mpi.$n" 90 "${mpirun[@]}" "$n" "$bin/launch_training_step"
  done
  # Every test makes an NCCL communicator of its own, so only some.
  LONGNET_TEST_COMMUNICATOR=nccl beside communicator.nccl.1 60 "$bin/distributed_communicator"
  LONGNET_TEST_COMMUNICATOR=nccl beside attention.nccl.1 60 "$bin/distributed_attention" \
    --gtest_filter='Attention/Transports*:Aligned*:Attention/AcrossRanks.MatchesTheDefinition/?'
  if command -v compute-sanitizer >/dev/null; then
    local ours='Dropout.*:Rotary.*:LayerNorm.*:CrossEntropy.OnTheGpuIsThatOnTheCpu:DilatedAttention.*'
    for tool in memcheck racecheck; do
      beside "sanitizer.$tool" 150 compute-sanitizer --tool $tool --kernel-regex kns=longnet --error-exitcode 1 \
        "$bin/gpu" --gtest_filter="$ours"
    done
  fi
  unset LONGNET_TEST_DEVICE

  # The quickstart on the CPU and on the GPU, alone over NCCL and with two ranks that share it.
  local quick=(train "$pack/configs/quickstart.yaml" --set "data.train=[$pack/text]"
    --set training.steps=30 --set training.evaluate_every_steps=0 --set logging.tensorboard=false)
  beside quickstart.cpu 120 "$bin/longnet" "${quick[@]}" --set "run=$out/run-cpu" --set parallel.device=cpu --set parallel.threads=6
  beside quickstart.gpu 60 "$bin/longnet" "${quick[@]}" --set "run=$out/run-gpu" --set parallel.device=cuda
  beside quickstart.shared 60 "${mpirun[@]}" 2 "$bin/longnet" "${quick[@]}" \
    --set "run=$out/run-shared" --set parallel.device=cuda --set parallel.share_gpu=true
  wait
  step quickstart.compare 20 "${python[@]}" "$pack/report.py" compare "$out"
}

run_measurements() {
  part_begins=$SECONDS budget=350
  step bench.attention 100 "$bin/bench_gpu_attention"
  "${python[@]}" "$pack/report.py" tokens "$out/tokens.bin" 4600000
  local paper=(train "$pack/configs/paper-125m.yaml" --set data.type=tokens --set "data.train=[$out/tokens.bin]"
    --set parallel.device=cuda --set logging.tensorboard=false --set optimizer.warmup_steps=2)
  step bench.training 60 "$bin/longnet" "${paper[@]}" --set "run=$out/run-paper" --set training.recompute=false \
    --set training.batch_size=2 --set training.steps=8
  step bench.peer 60 "${python[@]}" "$pack/eager_step.py" --batch 1
  step bench.profile 60 "$bin/longnet" "${paper[@]}" --set "run=$out/run-profile" --set training.recompute=false \
    --set training.batch_size=1 --set training.steps=4 --set logging.trace_step=4
  for length in 1048576 2097152 4194304; do
    step "bench.length.$length" 60 "$bin/longnet" "${paper[@]}" --set "run=$out/run-$length" --set training.batch_size=1 \
      --set training.steps=2 --set data.sequence_length=$length
  done
}

[[ $part == measurements ]] || run_tests
[[ $part == tests ]] || run_measurements
rm -rf "$out"/run-*/checkpoints "$out/tokens.bin"
"${python[@]}" "$pack/report.py" table "$out" | tee "$out/table.txt"
! grep -qE $'\t(failed|timed out)\t' <(grep -v bench.length "$out/steps.tsv")
