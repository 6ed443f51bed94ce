#!/usr/bin/env bash
# The long forms, in parts that end: each prints what it does, takes at most 15 minutes on two cores, and says at the end
# what held and what did not. They run on the plain binary, where times mean something.
#   verify.sh [PART]      with TARGET= (fuzz) or RUN= (fleet) for one of many
set -uo pipefail
cd "$(dirname "$0")/../.."
. bench/peers/run.sh
part=${1:-}

if [ -z "$part" ]; then
  cat <<'END'
make verify PART=NAME runs one of:

  part     usual time   what it does
  fuzz     14 min       2 minutes of each fuzz target, as many as fit, the longest unfuzzed first; TARGET=Fuzz… for one
  bars      1 min       start, memory, size and other figures of one host against their bars
  kills     1 min       Raft's store killed 200 times in mid-write: nothing that was acknowledged is lost
  models    3 min       cache, view and state against their models, 4,000 runs each; histories under faults, and which servers begin, in the long form
  simulate 14 min      whole clusters in fake time: random faults for ten minutes, each answer and the history of the catalog judged; the scenarios at 50 hosts
  forwarder 3 min       ten million forged replies; a minute of names that nobody has, upstreams answering and silent; the network down and up
  packages  5 min      the packages on Debian 12 and 13, as an rpm, and what lintian and rpmlint say
  resolv    8 min       hosts with Debian 12 and 13 taken from dnsmasq and given back, under load and half-way; hosts of systemd-resolved, resolvconf and openresolv taken over and given back, killed 100 times in mid-change
  fleet    14 min       fleets of hosts in their long form, as many as fit, the longest unrun first; RUN=TestFleet_… for one
END
  exit
fi

held=()
one() { # NAME COMMAND...: does it hold?
  if "${@:2}"; then held+=("$1"); else failed+=("$1"); fi
}
fuzzOne() { one "${1%%:*}" timeout 300 bench/peers/fuzz.sh 2m "${1#*:}" "${1%%:*}"; }
fleetOne() { one "$1" gotest -timeout 12m -run "^$1\$" ./bench/fleet; }

case $part in fuzz|bars|kills|models|simulate|forwarder|packages|resolv|fleet) ;; *) echo "there is no part \"$part\"; make verify lists them" >&2; exit 2 ;; esac
[ -n "${MEIBO_ALONE:-}" ] || exec bench/peers/alone.sh bench/peers/verify.sh "$@"
prepare
export MEIBO_VERIFY=1
begin=$SECONDS
case $part in
fuzz)
  targets=()
  while IFS=: read -r file name; do
    [ -n "${TARGET:-}" ] && [ "$TARGET" != "$name" ] || targets+=("$name:$(dirname "$file")")
  done < <(grep -rhoH --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort)
  [ ${#targets[@]} -gt 0 ] || { echo "there is no fuzz target \"$TARGET\"" >&2; exit 2; }
  rota fuzz 840 fuzzOne "${targets[@]}" ;;
bars)
  one bars gotest -timeout 12m -skip '^Test(DNSLoad|GossipLoad|Soak)$' ./bench/... ;;
kills)
  one "killed in mid-write" gotest -timeout 8m -run TestKillMidWrite ./cluster/consensus -kills 200
  one "the leader killed" gotest -timeout 6m -run TestKilledLeader ./cluster/consensus -leaderkills 20 ;;
models)
  one models gotest -timeout 14m ./cluster/catalog/state ./cluster/view ./cache -rapid.checks 4000
  one "histories under faults" gotest -timeout 4m -run '^TestHistories' ./cluster/consensus -faults 20s
  one "which servers begin" gotest -timeout 4m -run '^TestBootstrap' ./cluster/bootstrap -storms 1500 -viewsstep 1 ;;
simulate)
  one "random faults" gotest -timeout 13m -run '^TestSimulate$' ./cluster/clustertest -simulate 10m
  one "scenarios at 50 hosts" gotest -timeout 10m -run '/50_hosts' ./cluster/clustertest ;;
forwarder)
  one "forged replies" gotest -timeout 5m -run '^TestForgedReplies' ./forwarder
  one "random names, the network down and up" gotest -timeout 8m -run '^Test(RandomSubdomainFlood|NetworkDownAndUp|Forwarding_BlackBox)$' ./cmd/meibo ;;
packages)
  one packages gotest -timeout 14m -skip '^Test(Resolv|Migrate)_' ./packaging ;;
resolv)
  one "on directory trees" gotest -timeout 2m ./resolver/resolvconf
  one "from dnsmasq and back" gotest -timeout 12m -run '^TestMigrate_' ./packaging
  one "booted hosts" gotest -timeout 12m -run '^TestResolv_' ./packaging ;;
fleet)
  tests=()
  while read -r name; do
    [ -n "${RUN:-}" ] && [ "$RUN" != "$name" ] || tests+=("$name")
  done < <(grep -rho --include='*_test.go' '^func TestFleet[A-Za-z0-9_]*' bench/fleet | cut -d' ' -f2 | sort)
  [ ${#tests[@]} -gt 0 ] || { echo "there is no fleet test \"$RUN\"" >&2; exit 2; }
  rota fleet 840 fleetOne "${tests[@]}" ;;
esac
echo "$part: $((SECONDS - begin)) s"
[ ${#held[@]} = 0 ] || printf 'held: %s\n' "${held[@]}"
closing
