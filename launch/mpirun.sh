#!/usr/bin/env bash
# Starts longnet on RANKS ranks:   ./launch/mpirun.sh [--restarts N] [--hostfile FILE] RANKS train CONFIG [options]
# It sets what Open MPI needs on a laptop or in a container. Under Slurm: launch/scripts/slurm.sbatch.
#
# Ctrl-C, SIGTERM, SIGHUP (a terminal that closes) and SIGUSR1 ask a training to stop with a checkpoint (exit code 75); a
# second Ctrl-C ends it at once. mpirun alone answers all but SIGUSR1 by killing its ranks within two seconds, which is too
# little to save anything.
#
# --restarts N: a training that ends because a rank was killed, because communication failed (6), or with 75 though nobody asked
# this script, starts again from its newest checkpoint: at once where it has made a checkpoint since the last start, else after 1, 2,
# 4, ... 60 seconds, and up to N times in a row without one.
#
# --hostfile FILE: on these hosts, of which this is the first (docs/cluster.md).
set -euo pipefail
# Streams that are closed are as good as empty.
[[ -e /proc/$$/fd/0 ]] || exec </dev/null
[[ -e /proc/$$/fd/1 ]] || exec >/dev/null
[[ -e /proc/$$/fd/2 ]] || exec 2>/dev/null
trap '' PIPE   # nobody reads the output any more: what runs goes on
early=''   # a signal that comes before there is anything to stop
for name in INT TERM HUP USR1; do trap "early=$name" $name; done

refuse() {
  echo "mpirun.sh: $1; usage: mpirun.sh [--restarts N] [--hostfile FILE] RANKS COMMAND ..." >&2
  exit 2
}

here=$(cd "$(dirname "$0")/.." && pwd)
restarts=0 hostfile=''
while [[ ${1:-} == --* ]]; do
  case $1 in
    --restarts)
      restarts=${2:-}
      [[ $restarts =~ ^[0-9]{1,6}$ ]] || refuse "--restarts takes a number, not '$restarts'"
      restarts=$((10#$restarts)) ;;
    --hostfile)
      hostfile=${2:-}
      [[ -f $hostfile && -r $hostfile ]] || refuse "--hostfile takes a file that can be read, not '$hostfile'" ;;
    *) refuse "unknown option $1" ;;
  esac
  shift 2
done
ranks=${1:-}
[[ $ranks =~ ^[1-9][0-9]{0,5}$ ]] || refuse "RANKS is a number from 1, not '$ranks'"
shift
program=${LONGNET:-$here/build/release/bin/longnet}
[[ -x $(command -v -- "$program") ]] || refuse "there is no program $program; build longnet, or name it in LONGNET"
command -v mpirun >/dev/null || refuse "there is no mpirun on the PATH; ./launch/scripts/setup.sh installs it"
# What is to be gone on from must be the same at every start.
if ((restarts)) && [[ " $* " == *" --resume"[\ =]* && " $* " != *" --resume"[\ =]"auto "* ]]; then
  refuse "--restarts goes on from the newest checkpoint: start once with --resume, without --restarts, and then without --resume"
fi
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
# When a rank is killed, the others have nothing more to do: mpirun would give them two seconds for it.
export OMPI_MCA_odls_base_sigkill_timeout=${OMPI_MCA_odls_base_sigkill_timeout:-0}
# Ranks bind no core, because each runs several threads.
options=(--quiet --bind-to none -np "$ranks")

# A folder in memory, which this script removes at its end, and those of scripts that were killed. Process numbers are compared within
# one container only.
shared='' space=$(readlink /proc/self/ns/pid 2>/dev/null | tr -dc 0-9) || space=''
if [[ $space && -w /dev/shm ]]; then
  for left in /dev/shm/longnet-mpi-"$space"-*; do
    if [[ -O $left ]] && ! kill -0 "${left##*-}" 2>/dev/null; then rm -rf "$left"; fi
  done
  shared=/dev/shm/longnet-mpi-$space-$$
  mkdir -p -m 700 "$shared"
else
  shared=$(mktemp -d) || refuse "no temporary folder can be made"
fi
# There the training tells how far it is (launch/job/restarts.h).
saved_step=$shared/saved-step
export LONGNET_SAVED_STEP_FILE=$saved_step LONGNET_RESTART=''

if [[ $hostfile ]]; then
  # A host that is gone is noticed by the connections between mpirun and its daemons after some ten seconds, not after eight minutes.
  options+=(--hostfile "$hostfile" --mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 2)
  options+=(-x LONGNET_SAVED_STEP_FILE -x LONGNET_RESTART)
  for name in OMP_NUM_THREADS LONGNET_START_TIMEOUT_SECONDS; do
    if [[ ${!name:-} ]]; then options+=(-x "$name"); fi
  done
else
  options+=(--oversubscribe)
  # Idle ranks give way where there are more ranks than cores.
  if ((ranks > $(nproc))); then export OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive; fi
  # One host needs none of the drivers of networks that Open MPI tries else, which take a third of the start.
  [[ ${OMPI_MCA_pml:-} || ${OMPI_MCA_mtl:-} ]] || export OMPI_MCA_pml=ob1
  # Ranks speak through files in memory, which a job that is killed leaves behind.
  if [[ $shared == /dev/shm/* && ! ${OMPI_MCA_btl_vader_backing_directory:-} ]]; then export OMPI_MCA_btl_vader_backing_directory=$shared; fi
fi

is_rank() {   # is process $1 one of any job with this program
  [[ $(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | head -n 1) == "$program" ]]
}

# The ranks of this host that mpirun has started.
local_ranks() {
  local rank
  for rank in $(cat "/proc/$job/task/"*/children 2>/dev/null); do
    if is_rank "$rank"; then echo "$rank"; fi
  done
}

# mpirun hands SIGUSR1 on (its mask of proc(5)), and all ranks hold it (launch/starter.cpp): they are there, as the first of them tells.
is_listening() {
  local mask
  mask=$(awk '$1 == "SigCgt:" {print $2}' "/proc/$job/status" 2>/dev/null) && [[ $mask && -s $saved_step ]] &&
    ((16#${mask: -4} & 1 << ($(kill -l USR1) - 1)))
}

# mpirun waits for a quarter of an hour for hosts that cannot be reached any more, after its own ranks have ended for that reason.
end_when_left_alone() {
  local had_ranks='' seconds=0
  while kill -0 "$job" 2>/dev/null; do
    if [[ $(local_ranks) ]]; then had_ranks=1 seconds=0; elif [[ $had_ranks ]]; then seconds=$((seconds + 1)); fi
    if ((seconds == 10)); then
      echo lost >"$saved_step.lost"
      kill -KILL "$job" 2>/dev/null || true
      return
    fi
    sleep 1
  done
}

# A signal that comes while they start is not lost: it waits here. But not for ever on a word that may not come.
ask_to_stop() {
  for ((tenths = 0; tenths < 600; ++tenths)); do
    kill -0 "$job" 2>/dev/null || return 0
    if is_listening; then break; fi
    sleep 0.1
  done
  kill -USR1 "$job" 2>/dev/null || true
}

asked='' interrupted='' ended_by=''
stop() {
  # A terminal that has closed takes no words.
  if [[ $saves && ! $asked ]]; then echo "mpirun.sh: stopping, with a checkpoint of what was trained; Ctrl-C (again) stops at once" >&2 || true; fi
  if [[ ! $saves || ($1 == INT && $interrupted) ]]; then
    ended_by=$1
    kill -TERM "$job" 2>/dev/null || true
  elif [[ ! $asked ]]; then
    ask_to_stop &
  fi
  asked=1
  if [[ $1 == INT ]]; then interrupted=1; fi
}

# Commands that have nothing to save are ended.
if [[ ${1:-} == train ]]; then saves=1; else saves=''; fi
# In a process group of its own, so that Ctrl-C reaches this script and not mpirun. --quiet: longnet says itself what is wrong.
# Should this script be killed, mpirun gets to know.
followed=()
if command -v setpriv >/dev/null; then followed=(setpriv --pdeathsig "$([[ $saves ]] && echo USR1 || echo TERM)"); fi

# What mpirun writes into a pipe or a socket goes through a relay, which goes on when the reader has gone (a Ctrl-C that ends `| tee`,
# too): mpirun alone ends its ranks then. Results that go into a file go through another, which tells when they do not: mpirun does not.
relays=() writer=''
relayed() {
  trap '' INT TERM HUP USR1
  exec tee -p /dev/null
}
exec {out}>&1 {err}>&2
if [[ ! $saves && ! -t 1 && ! -p /dev/fd/1 ]]; then
  exec {out}> >(exec cat)
  writer=$!
elif [[ $saves && ! -t 1 && ! -f /dev/fd/1 && ! -c /dev/fd/1 ]]; then
  exec {out}> >(relayed)
  relays+=($!)
fi
if [[ $saves && ! -t 2 && ! -f /dev/fd/2 && ! -c /dev/fd/2 ]]; then
  exec {err}> >(relayed >&2)
  relays+=($!)
fi
# All lines are to have come when this script ends.
drain() {
  exec {out}>&- {err}>&- || true
  for relay in "${relays[@]}"; do
    for ((tenths = 0; tenths < 50; ++tenths)); do
      if ! kill -0 "$relay" 2>/dev/null; then break; fi
      sleep 0.1
    done
  done
}
trap 'drain; rm -rf "$shared"' EXIT

# Runs the command, and leaves its exit code in `code`.
run() {
  set -m
  : >"$saved_step"
  "${followed[@]}" mpirun "${options[@]}" "$program" "$@" <&0 >&"$out" 2>&"$err" &
  job=$!
  set +m
  for name in INT TERM HUP USR1; do trap "stop $name" $name; done
  if [[ $early ]]; then stop "$early"; fi
  early=''
  if [[ $hostfile ]]; then end_when_left_alone & fi
  # Quiet, because the shell would say in its way what tell_of_killed_rank says.
  code=0
  { wait $job || code=$?; } 2>/dev/null
  while kill -0 $job 2>/dev/null; do   # a signal had ended the wait
    code=0
    { wait $job || code=$?; } 2>/dev/null
  done
  if ((code != 0)); then wait_for_ranks; fi
}

# Ranks whose mpirun was killed live a moment longer, and hold the run folder.
wait_for_ranks() {
  local process left tenths
  for ((tenths = 0; tenths < 100; ++tenths)); do
    left=''
    for process in /proc/[0-9]*; do
      is_rank "${process#/proc/}" || continue
      if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qx "LONGNET_SAVED_STEP_FILE=$saved_step"; then left=1; fi
    done
    if [[ ! $left ]]; then return; fi
    sleep 0.1
  done
}

# Says what --quiet silences mpirun about.
tell_of_killed_rank() {
  if [[ -e $saved_step.lost ]]; then
    rm -f "$saved_step.lost"
    code=6
    echo "mpirun.sh: the ranks of this host have ended, but mpirun cannot reach the other hosts: ended" >&2 || true
    return
  fi
  if ((code <= 128)); then return; fi
  echo "mpirun.sh: a rank or mpirun was killed by SIG$(kill -l $((code - 128))); the memory of the host may not have sufficed (dmesg tells)" >&2 || true
}

# Waits before the next start, unless it is asked to stop.
wait_before_restart() {
  local seconds=0 what="starting again, from the checkpoint of step $saved"
  if ((in_vain > 0)); then
    seconds=$((1 << (in_vain < 7 ? in_vain - 1 : 6)))
    seconds=$((seconds < 60 ? seconds : 60))
    what="no new checkpoint; restart $in_vain of $restarts, from the newest, in $seconds s"
  fi
  echo "mpirun.sh: exit code $code; $what" >&2 || true
  export LONGNET_RESTART="number $1, after exit code $code"
  local end=$((SECONDS + seconds))
  while ((SECONDS < end)) && [[ ! $asked ]]; do sleep 0.2; done
}

saved='' in_vain=0   # the newest checkpoint that was told of; restarts in a row without one
for ((restart = 1;; ++restart)); do
  run "$@"
  if [[ $ended_by ]]; then exit $((128 + $(kill -l "$ended_by"))); fi   # mpirun's own code tells nothing then
  tell_of_killed_rank
  if [[ $writer ]]; then
    exec {out}>&-
    wait "$writer" || if ((code == 0)); then code=1; fi
  fi
  if [[ ! $saves || $asked ]] || ((restarts == 0 || code != 6 && code != 75 && code <= 128)); then exit $code; fi
  told=$(cat "$saved_step")
  if [[ $told =~ ^[0-9]+ ]]; then saved=$told in_vain=0; else in_vain=$((in_vain + 1)); fi
  if ((in_vain > restarts)); then exit $code; fi
  wait_before_restart $restart
  if [[ $asked ]]; then exit 75; fi   # between two runs: what is saved stays
done
