#!/usr/bin/env bash
# What `make test` and `make verify` do: fetch the peer programs, run every test under the race detector, Consul's own Go
# client against a running daemon, then each fuzz target for the time given. With MEIBO_VERIFY set the long forms follow, on
# the plain binary. Ends by naming what did not run, and why.
#   test.sh FUZZTIME
set -uo pipefail
cd "$(dirname "$0")/../.."
fuzztime=${1:-5s}
failed=()
missing=()
has_cc() { command -v gcc >/dev/null || command -v clang >/dev/null || [ -n "${CC:-}" ]; }

packages=(nginx-light haproxy nsd bind9-dnsutils curl)
has_cc || packages+=(gcc libc6-dev)
if ! bench/peers/fetch.sh .peers "${packages[@]}"; then
  for program in nginx haproxy nsd dig curl; do
    command -v $program >/dev/null || missing+=("$program is missing, so tests that drive it did not run: install it, or run as root on Debian")
  done
fi
export MEIBO_BIN=$PWD/bin/meibo MEIBO_PEERS=$PWD/.peers/root
race=-race
if has_cc; then export CGO_ENABLED=1
elif [ -x .peers/root/usr/bin/gcc ]; then export CGO_ENABLED=1 CC=$PWD/bench/peers/cc.sh
else race=; missing+=("no C compiler, so the tests ran without the race detector: install gcc"); fi

log=$(mktemp); trap 'rm -f "$log"' EXIT
# The daemons of fleets are raced too.
if [ -n "$race" ]; then
  export MEIBO_RACE_BIN=$PWD/bin/meibo-race
  go build -race -o "$MEIBO_RACE_BIN" ./cmd/meibo || failed+=("go build -race")
fi

# The log has everything; the terminal gets results, figures and, at the end, what failed.
gotest() {
  go test -v -count=1 -timeout 30m "$@" >"$log" 2>&1; local code=$?
  grep -E '^(ok|FAIL|panic:)' "$log"
  # Figures, each behind the test that measured it.
  awk '/^ *=== (RUN|NAME|CONT)/ { name = $3 }
       /_test\.go:[0-9]+: === RUN/ { name = $4 }
       /_test\.go:[0-9]+: .*([0-9](ms|µs|s|MB)( |,|$)|p = |rows|none lost)/ && !/rapid|=== RUN/ { sub(/^ *[a-z_]+_test\.go:[0-9]+: /, ""); print "  " name ": " $0 }' "$log"
  while read -r line; do missing+=("$line"); done < <(grep -hA3 -E '^ *--- SKIP' "$log" | tr -s '\n ' ' ' | sed 's/ --- SKIP/\n--- SKIP/g' | grep SKIP | sort -u)
  if [ $code != 0 ]; then
    echo "---- what failed:"; grep -E '^ *--- FAIL|DATA RACE' "$log"; grep -vE '^ *(=== |--- PASS|--- SKIP)|^ok|^\?|^PASS' "$log" | tail -400
    failed+=("go test $*")
  fi
}
begin=$SECONDS
# Fleets of hosts come after the rest: what they measure is time.
gotest $race -skip '^TestFleet' ./...
echo "tests: $((SECONDS - begin)) s"
begin=$SECONDS
gotest $race -run '^TestFleet' ./cmd/meibo
echo "fleets of hosts: $((SECONDS - begin)) s"
begin=$SECONDS
bench/peers/apitest.sh || failed+=("Consul's Go client")
echo "Consul's Go client: $((SECONDS - begin)) s"
begin=$SECONDS
bench/peers/fuzz.sh "$fuzztime" || failed+=("fuzzing")
echo "fuzzing: $((SECONDS - begin)) s"

if [ -n "${MEIBO_VERIFY:-}" ]; then
  gotest -timeout 3h ./bench/... ./cmd/...
  gotest ./cluster/consensus -kills 200
  gotest ./cluster/catalog/state ./cluster/view ./cache -rapid.checks 4000
fi

if [ ${#missing[@]} -gt 0 ]; then printf 'not run: %s\n' "${missing[@]}"; else echo "not run: nothing, every test ran"; fi
if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED: %s\n' "${failed[@]}"; exit 1; fi
echo "all passed"
