#!/bin/sh
# A C compiler out of the peers' folder, for a machine that has none of its own: go's race detector links with it.
root=$(cd "$(dirname "$0")/../../.peers/root" && pwd) || exit 1
arch=$(ls "$root/usr/lib/gcc" | head -1)
version=$(ls "$root/usr/lib/gcc/$arch" | head -1)
LD_LIBRARY_PATH="$root/usr/lib/$arch" PATH="$root/usr/bin:$PATH" \
  exec "$root/usr/bin/gcc" --sysroot="$root" -B"$root/usr/lib/gcc/$arch/$version/" -B"$root/usr/bin/" "$@"
