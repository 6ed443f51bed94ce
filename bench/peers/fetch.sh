#!/usr/bin/env bash
# Fetches the programs that tests drive (nginx, haproxy, NSD, dig, curl, dnsmasq) and, where there is none, a C compiler for the
# race detector, into a small Debian root of their own. Packages are unpacked, never installed: no maintainer script
# runs, no service starts, and nothing outside the folder changes. Kept between runs; a stamp names what is in it.
#
#   fetch.sh DIR PACKAGE...      exits 0 when DIR holds them all, 3 when this machine can't (with the reason on stderr)
set -euo pipefail
dir=$1; shift
want="$(. /etc/os-release 2>/dev/null && echo "${ID:-?} ${VERSION_ID:-?}"): $*"
[ -f "$dir/.stamp" ] && [ "$(cat "$dir/.stamp")" = "$want" ] && exit 0

cannot() { echo "peers: $1" >&2; exit 3; }
[ "$(id -u)" = 0 ] || cannot "not root, so nothing was fetched; programs on PATH are used where there are any"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "not a Debian system (no apt-get), so nothing was fetched"

rm -rf "$dir"; mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/root"
dir=$(cd "$dir" && pwd)
: > "$dir/apt/status"   # an empty one: the whole closure is fetched, libc included, whatever this machine has
apt=(apt-get -qq -y -o "Dir::State=$dir/apt" -o "Dir::State::lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status"
     -o "Dir::Cache=$dir/apt" -o "Dir::Cache::archives=$dir/apt/archives" -o "Dir::Log=$dir/apt" -o APT::Sandbox::User=root
     -o APT::Install-Recommends=false -o Debug::NoLocking=true)
echo "peers: fetching $* into $dir (once)" >&2
# A mirror may cut a connection; three tries, then say so.
for try in 1 2 3; do
  if "${apt[@]}" update >"$dir/apt/log" 2>&1 && "${apt[@]}" install --download-only "$@" >>"$dir/apt/log" 2>&1; then break; fi
  [ $try -lt 3 ] || { tail -5 "$dir/apt/log" >&2; cannot "apt-get could not fetch the packages"; }
done
for deb in "$dir"/apt/archives/*.deb; do dpkg-deb -x "$deb" "$dir/root"; done

# What maintainer scripts would have made, as far as the tests' programs look at it.
mkdir -p "$dir/root"/{dev,proc,tmp,run,var/log/nginx,var/lib/nginx,etc}
chmod 1777 "$dir/root/tmp"
echo 'nameserver 127.0.0.1' > "$dir/root/etc/resolv.conf"
echo 'hosts: files dns' > "$dir/root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$dir/root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$dir/root/etc/group"
rm -rf "$dir/apt"
echo "$want" > "$dir/.stamp"
