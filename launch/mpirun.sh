#!/usr/bin/env bash
# Starts longnet on RANKS ranks of this host:   ./launch/mpirun.sh RANKS train CONFIG [options]
# It sets what Open MPI needs on a laptop or in a container; on a cluster call mpirun or srun yourself (launch/scripts/slurm.sbatch).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
ranks=${1:?usage: mpirun.sh RANKS COMMAND ...}
shift
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# Ranks bind no core, because each runs several threads; idle ranks give way where there are more ranks than cores.
((ranks <= $(nproc))) || export OMPI_MCA_mpi_yield_when_idle=1
exec mpirun --bind-to none --oversubscribe -np "$ranks" "${LONGNET:-$here/build/release/bin/longnet}" "$@"
