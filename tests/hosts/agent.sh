#!/usr/bin/env bash
# What mpirun takes for ssh (plm_rsh_agent) among the hosts of world.sh. Nothing of the environment goes over, as with ssh.
set -euo pipefail
host=$1
shift
exec "$(dirname "$0")/on_host.sh" "$host" env --ignore-environment HOME="$HOME" PATH="$PATH" bash -c "$*"
