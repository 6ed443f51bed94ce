#!/usr/bin/env bash
# Drives a running daemon with Consul's own Go client. That client's dependencies clash with ours, so its tests are a
# module of their own.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
dns=$((20000 + RANDOM % 10000)) http=$((31000 + RANDOM % 1000))
# As in Consul, its client does over the port what operators do.
echo 'http_config { operator = "open" }' >"$dir/open.hcl"
"${MEIBO_BIN:-bin/meibo}" agent -dev -config-file "$dir/open.hcl" -bind 127.0.0.1 -dns-port $dns -http-port $http -recursor 127.0.0.1:9 >"$dir/log" 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true; rm -rf "$dir"' EXIT
ready() { CONSUL_HTTP_ADDR=127.0.0.1:$http "${MEIBO_BIN:-bin/meibo}" services 2>/dev/null | grep -q '^consul'; }
for _ in $(seq 300); do
  ready && break
  kill -0 $daemon 2>/dev/null || { cat "$dir/log"; exit 1; }
  sleep 0.1
done
cd cluster/httpapi/apitest
MEIBO_TEST_HTTP_ADDR=127.0.0.1:$http go test -count=1 ./... || { tail -50 "$dir/log"; exit 1; }
