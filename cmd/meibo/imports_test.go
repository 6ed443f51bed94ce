package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// importPolicy is the house as text: a room, and the rooms of ours that it may import. A new arrow is written here first,
// with a thought; that is the whole point of this file. "test" rooms may be imported by tests alone.
const importPolicy = `
resolver/wire            <
cache                    < resolver/wire
resolver                 < cache resolver/wire
resolver/listen          < resolver/wire
resolver/consul          < resolver resolver/wire cache cluster/catalog
resolver/filewatch       <
resolver/local           < resolver resolver/wire resolver/filewatch cache
resolver/resolvconf      < resolver/filewatch
resolver/control         < resolver resolver/wire cache
forwarder                < resolver resolver/wire
cluster/atomicfile       <
cluster/retry            <
cluster/httpserve        <
cluster/catalog          <
cluster/catalog/state    < cluster/catalog
cluster/consensus        < cluster/atomicfile
cluster/membership       <
cluster/gossip           < cluster/membership cluster/atomicfile cluster/retry
cluster/leader           < cluster/catalog cluster/retry
cluster/link             < cluster/retry cluster/httpserve
cluster/feed/frame       < cluster/catalog
cluster/feed             < cluster/catalog cluster/catalog/state cluster/feed/frame cluster/retry
cluster/view             < cluster/catalog cluster/feed/frame cluster/atomicfile cluster/retry
cluster/check            <
cluster/definition       < cluster/catalog cluster/check
cluster/agent            < cluster/definition cluster/catalog cluster/check cluster/atomicfile cluster/retry
cluster/acl              <
cluster/httpapi          < cluster/httpserve cluster/catalog cluster/acl cluster/definition cluster/check
cluster/httpapi/client   < cluster/catalog
cluster/bootstrap        < cluster/atomicfile cluster/retry
cluster/rpc              < cluster/catalog cluster/link cluster/retry
cluster/server           < cluster/catalog cluster/catalog/state cluster/consensus cluster/bootstrap cluster/leader cluster/feed cluster/atomicfile cluster/retry
cluster                  < cluster/server cluster/bootstrap cluster/rpc cluster/catalog cluster/consensus cluster/gossip cluster/leader cluster/link cluster/membership cluster/view cluster/feed cluster/agent cluster/atomicfile cluster/retry
cmd/meibo/logging        <
cmd/meibo/config         < resolver resolver/wire resolver/listen resolver/consul resolver/local cache forwarder cluster/catalog cluster/definition cluster/agent cluster/check cluster/consensus cluster/httpapi cluster/gossip cluster/link cluster/leader cmd/meibo/logging
cmd/meibo/dnsmasq        < resolver/local resolver/wire
cmd/meibo/signals        <
cmd/meibo/inventory      <
cmd/meibo/migrate        < cmd/meibo/config cmd/meibo/dnsmasq
cmd/meibo/doctor         < cmd/meibo/config cluster/httpapi/client resolver/listen resolver/resolvconf
cmd/meibo                < *
`

// soleImporters: a library that only one room may know, so that replacing it touches one package.
var soleImporters = map[string][]string{
	"github.com/hashicorp/raft":       {"cluster/consensus"},
	"go.etcd.io/bbolt":                {"cluster/consensus"},
	"github.com/hashicorp/memberlist": {"cluster/gossip"},
	"github.com/hashicorp/go-memdb":   {"cluster/catalog/state"},
	"github.com/spf13/cobra":          {"cmd/meibo"},
	"github.com/fsnotify/fsnotify":    {"resolver/filewatch"},
}

func TestImportsFollowThePolicy(t *testing.T) {
	allowed := make(map[string][]string)
	for line := range strings.Lines(importPolicy) {
		if room, arrows, ok := strings.Cut(strings.TrimSpace(line), "<"); ok {
			allowed[strings.TrimSpace(room)] = strings.Fields(arrows)
		}
	}
	for _, p := range goList(t) {
		room := strings.TrimPrefix(p.ImportPath, "meibo/")
		if isForTests(room) {
			continue // rooms for tests and measurements, which nothing of the product imports: checked below
		}
		arrows, known := allowed[room]
		if !known {
			t.Errorf("room %s is not in the policy: add it with the rooms it may import", room)
			continue
		}
		for _, imported := range p.Imports {
			checkArrow(t, room, imported, arrows)
		}
		for _, arrow := range arrows {
			if arrow != "*" && !slices.Contains(p.Imports, "meibo/"+arrow) {
				t.Errorf("%s no longer imports %s: take the arrow out of the policy", room, arrow)
			}
		}
	}
}

func checkArrow(t *testing.T, room, imported string, arrows []string) {
	t.Helper()
	for library, rooms := range soleImporters {
		if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(rooms, room) {
			t.Errorf("%s imports %s, which only %v may", room, imported, rooms)
		}
	}
	ours, ok := strings.CutPrefix(imported, "meibo/")
	if !ok {
		return
	}
	if isForTests(ours) {
		t.Errorf("%s imports %s, a room for tests", room, ours)
		return
	}
	if !slices.Contains(arrows, "*") && !slices.Contains(arrows, ours) {
		t.Errorf("new arrow: %s imports %s, which the policy does not allow", room, ours)
	}
}

// isForTests reports whether a room is for tests and measurements alone: bench, packaging, and what stands in a folder named …test.
func isForTests(room string) bool {
	return room == "bench" || strings.HasPrefix(room, "bench/") || room == "packaging" || strings.Contains(room+"/", "test/")
}

type listedPackage struct {
	ImportPath string
	Imports    []string
}

func goList(t *testing.T) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "meibo/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}
