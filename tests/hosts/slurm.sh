#!/usr/bin/env bash
# Starts Slurm among N hosts of world.sh, runs a command on h1, and takes all away:   slurm.sh N COMMAND...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
hosts=$1
shift
if [[ ! ${LONGNET_WORLD_HOSTS:-} ]]; then exec "$here/world.sh" "$hosts" "$(realpath "$0")" "$hosts" "$@"; fi

state=/run/slurm
mkdir "$state"
export SLURM_CONF=$state/slurm.conf
cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=h1(10.77.0.1)
SlurmUser=root
AuthInfo=socket=$state/munge.sock
StateSaveLocation=$state/control
SlurmdSpoolDir=$state/spool.%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.%n.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
MpiDefault=pmix
ReturnToService=2
KillWait=5
SlurmdTimeout=10
MessageTimeout=5
SlurmdParameters=config_overrides
NodeName=h[1-$hosts] NodeAddr=10.77.0.[1-$hosts] CPUs=2 CoresPerSocket=2 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES State=UP
EOF
mkdir "$state/control"
(umask 077 && head -c 128 /dev/urandom >"$state/key")
munged --force --key-file="$state/key" --socket="$state/munge.sock" --pid-file="$state/munged.pid" --log-file="$state/munged.log" \
  --seed-file="$state/seed" 2>/dev/null
"$here/on_host.sh" h1 slurmctld -D 2>/dev/null &
for ((number = 1; number <= hosts; ++number)); do "$here/on_host.sh" "h$number" slurmd -D 2>/dev/null & done
for ((tenths = 0; ; ++tenths)); do
  if [[ $("$here/on_host.sh" h1 sinfo --noheader --format="%D %T" 2>/dev/null) == "$hosts idle" ]]; then break; fi
  if ((tenths == 300)); then
    echo "slurm.sh: Slurm does not start" >&2
    tail -n 5 "$state"/*.log >&2
    exit 1
  fi
  sleep 0.1
done
"$here/on_host.sh" h1 "$@"
