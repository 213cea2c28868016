#!/usr/bin/env bash
# Starts longnet on RANKS ranks of this host:   ./launch/mpirun.sh RANKS train CONFIG [options]
# It sets what Open MPI needs on a laptop or in a container; on a cluster call mpirun or srun yourself (launch/scripts/slurm.sbatch).
#
# Ctrl-C and SIGTERM ask longnet to stop with a checkpoint (exit code 75); again, they end it at once. mpirun alone answers
# both by killing its ranks within two seconds, which is too little to save anything.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
ranks=${1:?usage: mpirun.sh RANKS COMMAND ...}
shift
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# Ranks bind no core, because each runs several threads; idle ranks give way where there are more ranks than cores.
if ((ranks > $(nproc))); then export OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive; fi

# Commands that have nothing to save are ended.
if [[ ${1:-} == train ]]; then request=USR1; else request=TERM; fi
requests=0
stop() {
  requests=$((requests + 1))
  if ((requests == 1)) && [[ $request == USR1 ]]; then
    echo "mpirun.sh: stopping with a checkpoint; interrupt again to stop at once" >&2
    kill -USR1 $job 2>/dev/null || true
  else
    kill -TERM $job 2>/dev/null || true
  fi
}

# In a process group of its own, so that Ctrl-C reaches this script and not mpirun. --quiet: longnet says itself what is wrong.
set -m
mpirun --quiet --bind-to none --oversubscribe -np "$ranks" "${LONGNET:-$here/build/release/bin/longnet}" "$@" <&0 &
job=$!
set +m
trap stop INT TERM
trap 'kill -USR1 $job 2>/dev/null || true' USR1

code=0
wait $job || code=$?
while kill -0 $job 2>/dev/null; do   # a signal had ended the wait
  code=0
  wait $job || code=$?
done
exit $code
