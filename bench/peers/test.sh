#!/usr/bin/env bash
# What `make test` and `make verify` do: fetch the peer programs, run every test under the race detector, the API client's
# module against a running daemon, then each fuzz target for the time given. Ends by naming what could not run, and why.
#   test.sh FUZZTIME
set -uo pipefail
cd "$(dirname "$0")/../.."
fuzztime=${1:-5s}
failed=0
missing=()

packages=(nginx-light haproxy nsd bind9-dnsutils curl)
cc=${CC:-}
command -v gcc >/dev/null || command -v clang >/dev/null || [ -n "$cc" ] || packages+=(gcc libc6-dev)
if ! bench/peers/fetch.sh .peers "${packages[@]}"; then
  for program in nginx haproxy nsd dig curl; do
    command -v $program >/dev/null || missing+=("$program is missing: tests that drive it did not run (install it, or run as root on Debian)")
  done
fi
export MEIBO_BIN=$PWD/bin/meibo MEIBO_PEERS=$PWD/.peers/root
race=-race
if ! command -v gcc >/dev/null && ! command -v clang >/dev/null && [ -z "$cc" ]; then
  if [ -x .peers/root/usr/bin/gcc ]; then export CC=$PWD/bench/peers/cc.sh
  else race=; missing+=("no C compiler: the tests ran without the race detector"); fi
fi
[ -n "$race" ] && export CGO_ENABLED=1

log=$(mktemp); trap 'rm -f "$log"' EXIT
time go test $race -count=1 -timeout 20m ./... 2>&1 | tee "$log" || failed=1
while read -r line; do missing+=("$line"); done < <(go_skips() { grep -E '^\s*--- SKIP' "$log" || true; }; go_skips)

if [ -f cluster/httpapi/apitest/go.mod ]; then
  bench/peers/apitest.sh || failed=1
fi

time bench/peers/fuzz.sh "$fuzztime" || failed=1

if [ ${#missing[@]} -gt 0 ]; then printf 'not run: %s\n' "${missing[@]}"; else echo "not run: nothing, every test ran"; fi
[ $failed = 0 ] && echo "make test: ok" || { echo "make test: FAILED"; exit 1; }
