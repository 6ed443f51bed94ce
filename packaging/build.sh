#!/usr/bin/env bash
# Builds the packages, *.deb and *.rpm, in bin/packages. The same commit gives the same bytes.
#   build.sh [ARCH...]      amd64 and arm64 unless said; VERSION=… in place of what the git tag says, OUT=… of the folder
set -euo pipefail
cd "$(dirname "$0")/.."
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
out=${OUT:-$PWD/bin/packages}
[ $# -gt 0 ] || set -- amd64 arm64

# 1.2.3 at the tag v1.2.3; after it 1.2.3+5.gabc, which is later; before the first tag 0.0.0+413.gabc.
version() {
  local described
  if described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null); then
    sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)$/+\1.\2/; s/-/~/' <<<"$described"
  else
    echo "0.0.0+$(git rev-list --count HEAD).g$(git rev-parse --short HEAD)"
  fi
}
export VERSION=${VERSION:-$(version)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export TZ=UTC LC_ALL=C

# What is the same for all architectures is made once, by the code itself.
share=$out/share
rm -rf "$share"; mkdir -p "$share"/{man/man5,man/man8,completions}
go run -tags docs -ldflags "-X main.version=$VERSION" ./cmd/meibo docs "$share/man"
CGO_ENABLED=0 go build -trimpath -o "$share/meibo" ./cmd/meibo # of this machine
"$share/meibo" completion bash > "$share/completions/meibo.bash"
"$share/meibo" completion fish > "$share/completions/meibo.fish"
"$share/meibo" completion zsh > "$share/completions/_meibo"
find "$share/man" -type f -exec gzip -n9 {} +
cat > "$share/changelog.yml" <<END
- semver: $VERSION-1
  date: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
  packager: meibo maintainers <maintainers@meibo.invalid>
  deb: {urgency: medium, distributions: [unstable]}
  changes:
    - note: "As of commit $(git rev-parse --short HEAD); what changed is in the history of the repository."
END

cat > "$share/copyright" <<'END'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: meibo

Files: *
Copyright: 2026 the authors of meibo
License: none-yet
 The authors have not chosen a licence yet. The libraries in the binary have theirs: see third-party-notices.gz beside
 this file.
END

# The binary holds these libraries: their notices come with it.
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/meibo | sort -u | while read -r path ver dir; do
  for file in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/NOTICE*; do
    [ ! -f "$file" ] || { printf '==== %s %s, %s\n\n' "$path" "$ver" "$(basename "$file")"; tr -d '\r' < "$file"; echo; }
  done
done | gzip -n9 > "$share/third-party-notices.gz"

# Fills in the configuration of nfpm, which takes no variables in most places and no * for what is documentation.
filled() {
  sed -e "s|\${TREE}|$1|" -e "s|\${ARCH}|$2|" -e "s|\${VERSION}|$VERSION|" | while IFS= read -r line; do
    if [[ $line =~ ^(.*src:\ )\"(.*)/\*\"(,\ dst:\ [^,]*/)(,.*)$ ]]; then
      for file in "${BASH_REMATCH[2]}"/*; do
        echo "${BASH_REMATCH[1]}\"$file\"${BASH_REMATCH[3]}$(basename "$file")${BASH_REMATCH[4]}"
      done
    else
      echo "$line"
    fi
  done
}

for arch; do
  CGO_ENABLED=0 GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o "$share/meibo" ./cmd/meibo
  filled "$share" "$arch" < packaging/nfpm.yaml > "$share/nfpm.yaml"
  for format in deb rpm; do
    said=$(go run $nfpm package --config "$share/nfpm.yaml" --packager $format --target "$out/" 2>&1) || { echo "$said" >&2; exit 1; }
    sed -n 's/^created package: //p' <<<"$said"
  done
done
rm -rf "$share"
