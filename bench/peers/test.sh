#!/usr/bin/env bash
# What `make test` does: fetch the peer programs, run every test under the race detector, Consul's own Go client against a
# running daemon, then each fuzz target for the time given. Ends by naming what did not run, and why.
#   test.sh FUZZTIME
set -uo pipefail
cd "$(dirname "$0")/../.."
[ -n "${MEIBO_ALONE:-}" ] || exec bench/peers/alone.sh bench/peers/test.sh "$@"
. bench/peers/run.sh
fuzztime=${1:-5s}
prepare
# The daemons of fleets are raced too.
if [ -n "$race" ]; then
  export MEIBO_RACE_BIN=$PWD/bin/meibo-race
  go build -race -o "$MEIBO_RACE_BIN" ./cmd/meibo || failed+=("go build -race")
fi

begin=$SECONDS
# Whole clusters in fake time, that no load makes late; what they share with a daemon is raced by the fleets and by the simulations.
aside steadily -skip '^Test(Simulate|GossipLoad)$' ./cluster/clustertest ./bench/gossip
# Fleets of hosts come after the rest: what they measure is time. The longest come first, and three at once, as most of what
# they do is to wait.
longest=(./cmd/meibo ./cluster/gossip ./cluster/consensus ./forwarder ./cluster ./cmd/meibo/config)
steadily $race -p 3 -skip '^TestF(leet|eed)|^Test(DNSLoad|Soak)$' "${longest[@]}" $(go list ./... | grep -v -e /packaging$ -e /clustertest$ -e /bench/cluster$ -e /bench/gossip$)
joined
# For as long as it is told, so with nothing beside it.
steadily $race -run '^TestSimulate$' ./cluster/clustertest
echo "tests: $((SECONDS - begin)) s"
begin=$SECONDS
# Those whose rules clusters in fake time show are for make verify.
steadily $race -run '^TestFleet' -skip '^TestFleet_(AnswersWhileHostsFreeze|HealsAfterASplit|AnswersWithoutServers|AnswersWhileLeadersDie)$' ./bench/fleet
# The small form of make bench-cluster.
steadily ./bench/cluster
echo "fleets of hosts: $((SECONDS - begin)) s"
begin=$SECONDS
export MEIBO_FUZZ_BINS=$PWD/bin/fuzz
aside bench/peers/fuzz.sh build # while hosts boot
steadily -skip '^TestLint$' ./packaging
joined
echo "packages on a booted host: $((SECONDS - begin)) s"
begin=$SECONDS
bench/peers/apitest.sh || failed+=("Consul's Go client")
echo "Consul's Go client: $((SECONDS - begin)) s"
begin=$SECONDS
bench/peers/fuzz.sh "$fuzztime" || failed+=("fuzzing")
echo "fuzzing: $((SECONDS - begin)) s"
closing
