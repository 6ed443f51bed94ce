#!/usr/bin/env bash
# Runs a command once no other of this kind runs on the machine: two that measure, be it for two working copies, would
# measure each other. The lock goes with flock itself, so that nothing the command leaves behind can keep it.
#   alone.sh COMMAND...
set -uo pipefail
lock=${TMPDIR:-/tmp}/meibo-timing.lock
[ -z "${MEIBO_ALONE:-}" ] && command -v flock >/dev/null || exec "$@"
export MEIBO_ALONE=1
[ -e "$lock" ] || (umask 0 && : >"$lock") 2>/dev/null
flock -n "$lock" true || echo "waiting for another run on this machine to end ($lock)"
exec flock -o "$lock" "$@"
