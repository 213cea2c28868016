#!/usr/bin/env bash
# Runs a command on a host of world.sh: with its own network, name, process numbers, /tmp and /dev/shm.   on_host.sh h2 COMMAND...
set -euo pipefail
host=$1
shift
exec nsenter --net="/run/netns/$host" unshare --uts --ipc --pid --mount --fork --kill-child --mount-proc bash -c '
  hostname "$0"
  for folder in /tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
  "$@"
  exit $?   # the shell stays: as the first process of the host it learns of the end of orphans' "$host" "$@"
