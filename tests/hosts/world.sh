#!/usr/bin/env bash
# Makes hosts h1 ... hN (10.77.0.1 ...) out of this machine, on one network, runs a command among them, and takes all away when it
# ends:   world.sh N COMMAND...      Needs root. The command's /tmp, /run and /dev/shm are empty folders of the world.
set -euo pipefail
if [[ $1 != --inside ]]; then
  export LONGNET_WORLD_HOSTS=$1
  exec unshare --net --mount --pid --ipc --fork --kill-child --mount-proc "$(realpath "$0")" --inside "$@"
fi
hosts=$2
shift 2

make_network() {
  ip link set lo up
  ip netns add switch
  ip -n switch link add bridge type bridge
  ip -n switch link set bridge up
  for ((number = 1; number <= hosts; ++number)); do
    ip netns add "h$number"
    ip -n "h$number" link set lo up
    ip -n "h$number" link add eth0 type veth peer name "port$number" netns switch
    ip -n switch link set "port$number" master bridge up
    ip -n "h$number" address add "10.77.0.$number/24" dev eth0
    ip -n "h$number" link set eth0 up
  done
}

for folder in /run /tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
mkdir /run/netns
make_network
"$@"
