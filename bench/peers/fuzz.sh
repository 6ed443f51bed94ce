#!/usr/bin/env bash
# Runs each fuzz target of the module, of a package, or one, for the given time, one after the other, and prints how much
# each one tried.
#   fuzz.sh TIME [PACKAGE [TARGET]]
#   fuzz.sh build                     builds what they are, alone, into the folder MEIBO_FUZZ_BINS, where the next call has them from
set -uo pipefail
cd "$(dirname "$0")/../.."
time=${1:-5s} only=${3:-}
packages=${2:-$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u)}
failed=0 targets=0
bins=${MEIBO_FUZZ_BINS:-$(mktemp -d)}
if [ "$time" = build ]; then rm -rf "$bins"; else trap 'rm -rf "$bins"' EXIT; fi
kept=$(go env GOCACHE)/fuzz/$(go list -m) # where go test keeps what reached new code
try() { out=$(cd "$package" && "$bin" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x -test.fuzzcachedir "$kept/$package" 2>&1); }
# again says that the fuzzer's own end was taken for a failure (golang/go#75804, mended in Go 1.27): its deadline, and nothing found.
again() { grep -qx '    context deadline exceeded' <<<"$1" && ! grep -qE 'Failing input|panic|_test\.go:' <<<"$1"; }
for package in $packages; do
  # Built once for all its targets: -fuzz takes one at a time, and linking anew takes as long as a short run.
  bin=$bins/$(tr / _ <<<"$package").test
  [ -x "$bin" ] || go test -c -vet=off -fuzz . -o "$bin" "$package" || { failed=$((failed + 1)); continue; }
  [ "$time" != build ] || continue
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$package"/*_test.go | cut -d' ' -f2); do
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    targets=$((targets + 1))
    if try || { again "$out" && try; }; then
      printf 'fuzz  %-28s %-36s %s\n' "$package" "$target" "$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1)"
    else
      printf 'fuzz  %-28s %-36s FAILED\n%s\n' "$package" "$target" "$out"; failed=$((failed + 1))
    fi
  done
done
[ "$time" = build ] || echo "fuzz: $targets targets, $time each, $failed failed"
[ $failed = 0 ]
