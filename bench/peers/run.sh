# Sourced by test.sh and verify.sh: the peer programs, go test with what it measured, and the end.

failed=() missing=() unsteady=()
has_cc() { command -v gcc >/dev/null || command -v clang >/dev/null || [ -n "${CC:-}" ]; }

# prepare fetches the peers and a C compiler for the race detector where there is none.
prepare() {
  local packages=(nginx-light haproxy nsd bind9-dnsutils curl dnsmasq-base systemd-container mmdebstrap)
  has_cc || packages+=(gcc libc6-dev)
  if ! bench/peers/fetch.sh .peers "${packages[@]}"; then
    for program in nginx haproxy nsd dig curl dnsmasq; do
      command -v $program >/dev/null || missing+=("$program is missing, so tests that drive it did not run: install it, or run as root on Debian")
    done
  fi
  export MEIBO_BIN=$PWD/bin/meibo MEIBO_PEERS=$PWD/.peers/root
  race=-race
  if has_cc; then export CGO_ENABLED=1
  elif [ -x .peers/root/usr/bin/gcc ]; then export CGO_ENABLED=1 CC=$PWD/bench/peers/cc.sh
  else race=; missing+=("no C compiler, so the tests ran without the race detector: install gcc"); fi
  # A raced program ends when it ends: each command line that tests call would wait a second more for races of other goroutines.
  export GORACE=atexit_sleep_ms=0
  log=$(mktemp); trap 'rm -f "$log"' EXIT
}

# gotest runs go test; the log has everything, the terminal gets results, figures and, at the end, what failed. Vetting is
# make lint's.
gotest() {
  go test -v -vet=off -count=1 -timeout 30m "$@" >"$log" 2>&1; local code=$?
  grep -E '^(ok|FAIL|panic:)' "$log"
  # Figures, each behind the test that measured it.
  awk '/^ *=== (RUN|NAME|CONT)/ { name = $3 }
       /_test\.go:[0-9]+: === RUN/ { name = $4 }
       /_test\.go:[0-9]+: .*([0-9](ms|µs|s|MB)( |,|$)|p = |rows|none lost)/ && !/rapid|=== RUN/ { sub(/^ *[a-z_]+_test\.go:[0-9]+: /, ""); print "  " name ": " $0 }' "$log"
  while read -r line; do missing+=("$line"); done < <(grep -hA3 -E '^ *--- SKIP' "$log" | tr -s '\n ' ' ' | sed 's/ --- SKIP/\n--- SKIP/g' | grep SKIP | sort -u)
  [ $code != 0 ] || return 0
  echo "---- what failed:"; grep -E '^ *--- FAIL|DATA RACE' "$log"; ofFailed | grep -vE '^ *(=== |--- PASS|--- SKIP)|^PASS' | tail -600
  return 1
}

# ofFailed prints what the tests that failed have said, or all that their packages have where that says too little.
ofFailed() {
  if [ -z "$(nameless)" ] && ! grep -qE 'DATA RACE|^panic:' "$log"; then
    awk 'NR == FNR { if (/^ *--- FAIL: /) failed[$3]; next } /^=== (RUN|NAME|CONT|PAUSE)/ { on = $3 in failed } on' "$log" "$log"
    return
  fi
  awk '{ said = said $0 "\n" } /^(ok|\?)[ \t]/ { said = "" } /^FAIL[ \t]/ { printf "%s", said; said = "" } END { printf "%s", said }' "$log"
}

# nameless prints the packages that failed without a test that did.
nameless() {
  awk '/^--- FAIL: / { named = 1 } /^ok[ \t]/ { named = 0 } /^FAIL[ \t]/ { if (!named) print $2; named = 0 }' "$log"
}

# steadily is gotest for tests that run beside others. What fails for the time that others took passes by itself: each is
# run once more, alone, and named at the end if it passes then. A race, a panic, what doesn't build or a package that failed
# by none of its tests gets no second try.
steadily() {
  gotest "$@" && return
  local tests; tests=$(grep -oE '^--- FAIL: Test[A-Za-z0-9_]+' "$log" | cut -d' ' -f3 | sort -u)
  if [ -n "$tests" ] && [ "$(wc -w <<<"$tests")" -le 5 ] && ! grep -qE 'DATA RACE|^panic:|\[(build|setup) failed\]|found unexpected goroutines' "$log" && [ -z "$(nameless)" ]; then
    echo "---- once more, alone:" $tests
    local packages; packages=$(grep -oE '^FAIL\s+meibo/\S+' "$log" | sed -E 's/^FAIL\s+meibo/./')
    if gotest $race -p 1 -parallel 1 -run "^($(paste -sd'|' <<<"$tests"))\$" $packages; then
      unsteady+=($tests); return
    fi
  fi
  failed+=("go test $*")
}

# aside runs a command that no time is measured by beside what follows, which comes before it at the processor; joined waits
# for it and takes over what it said.
#   aside COMMAND...
aside() {
  beside=$(mktemp -d)
  (
    trap - EXIT
    renice -n 19 $BASHPID >/dev/null
    log=$beside/log failed=() missing=() unsteady=()
    "$@" || failed+=("$*")
    for list in failed missing unsteady; do
      declare -n of=$list
      for item in "${of[@]}"; do printf '%s\n' "$item"; done >"$beside/$list"
    done
  ) >"$beside/said" 2>&1 &
  besideID=$!
}
joined() {
  wait $besideID || failed+=("what ran beside the rest ended with $?")
  cat "$beside/said"
  local list
  for list in failed missing unsteady; do
    declare -n of=$list
    readarray -t -O ${#of[@]} of <"$beside/$list"
  done
  rm -rf "$beside"
}

# closing names what did not run, what passed at the second try, and what failed.
closing() {
  if [ ${#missing[@]} -gt 0 ]; then printf 'not run: %s\n' "${missing[@]}"; else echo "not run: nothing, every test ran"; fi
  [ ${#unsteady[@]} = 0 ] || printf 'failed beside others and passed alone: %s\n' "${unsteady[@]}"
  if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED: %s\n' "${failed[@]}"; exit 1; fi
  echo "all passed"
}

# rota runs its items for a while: those that were run longest ago first, as the next call goes on where this one ends.
#   rota NAME SECONDS COMMAND ITEM...
rota() {
  local file=.peers/rota/$1 limit=$2 command=$3 items=("${@:4}") begin=$SECONDS done=0 item
  mkdir -p .peers/rota; touch "$file"
  while read -r item; do
    local usual; usual=$(awk -v i="$item" '$1 == i { print $3 }' "$file")
    if [ $done -gt 0 ] && [ $((SECONDS - begin + ${usual:-120})) -gt "$limit" ]; then break; fi
    done=$((done + 1))
    echo "== $item ($done of ${#items[@]}, after $((SECONDS - begin)) s of at most $limit)"
    local at=$SECONDS; "$command" "$item" </dev/null # which is the list here
    { grep -v "^$item " "$file"; echo "$item $(date +%s) $((SECONDS - at))"; } >"$file.new"; mv "$file.new" "$file"
  done < <(for item in "${items[@]}"; do echo "$(awk -v i="$item" '$1 == i { print $2; found = 1 } END { if (!found) print 0 }' "$file") $item"; done | sort -sn | cut -d' ' -f2)
  echo "$done of ${#items[@]} were run; the next call begins with those that were not"
}
