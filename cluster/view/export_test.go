package view

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

var updateGolden = flag.Bool("update", false, "write the golden file anew; that of a released version must not change")

// fullExport has everything that an export can have.
func fullExport() *Export {
	at := func(day int) time.Time { return time.Date(2026, 3, day, 12, 0, 0, 5, time.UTC) }
	n1 := catalog.NodeState{
		Node: &catalog.Node{
			ID: "3d7c1f40-0000-0000-0000-000000000001", Node: "N1", Address: "10.0.0.1", Datacenter: "dc1",
			TaggedAddresses: map[string]string{"lan": "10.0.0.1"}, Meta: map[string]string{"b": "2", "a": "1"},
			CreateIndex: 7, ModifyIndex: 9, Synced: "h2",
		},
		Checks:    []*catalog.Check{{Node: "N1", CheckID: catalog.SerfHealth, Name: "Serf Health Status", Status: catalog.Passing}},
		Addresses: []catalog.AddressOf{{Address: "10.0.1.1", Service: "Web", ServiceID: "web-1"}},
	}
	web := catalog.Part{
		Node: "N1", Service: "web",
		Services: []*catalog.Service{{Node: "N1", ID: "web-1", Service: "Web", Tags: []string{"blue"}, Address: "10.0.1.1", Port: 80, Weights: catalog.Weights{Passing: 2, Warning: 1}}},
		Checks:   []*catalog.Check{{Node: "N1", CheckID: "http", Status: catalog.Warning, Output: "slow", ServiceID: "web-1", ServiceName: "Web"}},
	}
	old := catalog.NodeState{Node: &catalog.Node{Node: "ext", Address: "db.example.com", Agentless: true}}
	db := catalog.Part{Node: "ext", Service: "db", Services: []*catalog.Service{{Node: "ext", ID: "db", Service: "db", Port: 5432}}}
	e := &Export{
		Asked: map[string]time.Time{"web": at(2), "db": at(1)},
		Lives: []LifeOf{{NodeID: n1.Node.ID, Name: "N1", Life: catalog.Alive, Since: at(1)}, {NodeID: "x", Name: "x", Life: catalog.Left}},
	}
	e.Current = Layer{ConfirmedAt: at(2), Update: catalog.Update{
		History: catalog.History{ID: "h2", Base: 1 << 40}, Index: 1<<40 + 12, Reset: true,
		Nodes: []catalog.NodeState{n1}, Names: []string{"mail", "web"}, Parts: []catalog.Part{web}, Complete: []string{"web"},
		Tombstones: []catalog.Tombstone{{Node: "gone"}, {Node: "ext", ServiceID: "web"}},
	}}
	e.Remembered = Layer{ConfirmedAt: at(1), Update: catalog.Update{
		Reset: true, Nodes: []catalog.NodeState{old}, Names: []string{"cache"}, Parts: []catalog.Part{db},
	}}
	return e
}

func mustEncode(t testing.TB, e *Export) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustSeal(t testing.TB, e *Export, of owner, key []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := seal(&b, e, of, key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSealedFile_OfEachVersionIsRead holds this program to the files that released
// ones wrote: they are the last known good of hosts that are upgraded.
func TestSealedFile_OfEachVersionIsRead(t *testing.T) {
	of := owner{NodeID: hostID, Datacenter: "dc1", Written: time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)}
	b := mustSeal(t, fullExport(), of, []byte("key one"))
	newest := filepath.Join("testdata", fmt.Sprintf("v%d.view", sealVersion))
	if *updateGolden {
		if err := os.WriteFile(newest, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for version := 1; version <= sealVersion; version++ {
		golden, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v%d.view", version)))
		if err != nil {
			t.Fatal(err)
		}
		got, whose, err := open(golden, [][]byte{[]byte("other"), []byte("key one")})
		if err != nil || whose != of {
			t.Errorf("version %d: %+v, %v", version, whose, err)
		}
		if diff := cmp.Diff(fullExport(), got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("version %d is read otherwise (-want +got):\n%s", version, diff)
		}
		if version == sealVersion && !slices.Equal(b, golden) {
			t.Error("the same export is written otherwise than it was: give it a new version")
		}
	}
}

// TestExport_ALayerIsAReset holds files and neighbours to the frames of a stream: what
// a view exports is, after the frames that say when, the Reset that a server tells.
func TestExport_ALayerIsAReset(t *testing.T) {
	v := mustNew(t, Config{})
	u := whole(5, node("n1", "10.0.0.1", service("web", 80)))
	mustTake(t, v, confirmed(u))
	u = v.Export().Current.Update
	var told bytes.Buffer
	if _, _, err := frame.WriteUpdate(&told, nil, &u, frame.Records(&u)); err != nil {
		t.Fatal(err)
	}
	if !u.Reset || !bytes.Contains(mustEncode(t, v.Export()), told.Bytes()) {
		t.Error("an export of one layer doesn't hold a server's Reset")
	}
}

func TestExport_CutShortIsDamaged(t *testing.T) {
	good := mustEncode(t, fullExport())
	for i := range good {
		if _, err := readExport(bytes.NewReader(good[:i])); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v, want ErrDamaged", i, err)
		}
	}
}

func TestSealedFile_OfANewerProgramIsNotCalledDamaged(t *testing.T) {
	b := mustSeal(t, fullExport(), owner{}, nil)
	b[len(sealMagic)] = 77
	if _, _, err := open(b, [][]byte{nil}); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 77") {
		t.Errorf("%v, want that version 77 is unknown", err)
	}
}

func TestExport_WhatIsTooLargeIsRefused(t *testing.T) {
	e := fullExport()
	e.Current.Parts[0].Checks[0].Output = strings.Repeat("x", frame.Max+1)
	if err := e.encode(io.Discard); err == nil {
		t.Error("a record beyond the bound was written")
	}
}

func TestExport_OnlyOneServiceHasItsNodesAndLives(t *testing.T) {
	only := fullExport().Only("WEB")
	if only.Current.Reset || len(only.Current.Nodes) != 1 || len(only.Current.Parts) != 1 || !slices.Equal(only.Current.Complete, []string{"web"}) ||
		len(only.Remembered.Nodes) != 0 || len(only.Lives) != 1 || len(only.Asked) != 1 {
		t.Errorf("%+v", only)
	}
	if only := fullExport().Only("db"); len(only.Current.Nodes) != 0 || len(only.Remembered.Nodes) != 1 {
		t.Errorf("%+v", only)
	}
	if only := fullExport().Only("nobody"); !only.IsEmpty() {
		t.Errorf("%+v, want nothing", only)
	}
}

func TestRule25_ContentsAreDroppedAfterThirtyDaysWithoutAQuestion(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tc := range []struct {
		name     string
		asked    time.Duration // before now; -1: never
		whole    bool
		has      bool
		askedNow bool
	}{
		{"asked lately", 29 * day, false, true, false},
		{"not asked", 31 * day, false, false, false},
		{"not asked, but all is told", 31 * day, true, true, false},
		{"asked in the future: the clock was wrong", -400 * day, false, true, false},
		{"never asked", -1, false, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := fullExport()
			e.Current.Whole = tc.whole
			e.Asked = map[string]time.Time{"db": now}
			if tc.asked != -1 {
				e.Asked["web"] = now.Add(-tc.asked)
			}
			e.dropUnasked(now, DefaultKeep)
			if has := len(e.Current.Parts) == 1; has != tc.has || slices.Contains(e.Current.Complete, "web") != tc.has {
				t.Errorf("contents kept: %v, want %v", has, tc.has)
			}
			if len(e.Current.Names) != 2 || len(e.Current.Nodes) != 1 || len(e.Remembered.Parts) != 1 {
				t.Error("more than contents was dropped")
			}
			if _, ok := e.Asked["web"]; ok != tc.has {
				t.Errorf("asked %v", maps.Collect(maps.All(e.Asked)))
			}
			if tc.askedNow && !e.Asked["web"].Equal(now) {
				t.Errorf("asked %v, want now", e.Asked["web"])
			}
		})
	}
}

func FuzzReadExport(f *testing.F) {
	full := mustEncode(f, fullExport())
	f.Add(full)
	f.Add(mustEncode(f, fullExport().Only("web")))
	f.Add(mustEncode(f, new(Export)))
	f.Add(full[:len(full)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := readExport(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := readExport(bytes.NewReader(mustEncode(t, e))); err != nil {
			t.Fatalf("what was read and written can't be read: %v", err)
		}
		importExport(t, e)
	})
}

// FuzzReadV1 goes past the checksum, which hides the records from a fuzzer.
func FuzzReadV1(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "v1.view"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden[bytes.LastIndex(golden, []byte(magicV1))+len(magicV1)+1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := readerV1{rest: b, export: &Export{Asked: make(map[string]time.Time)}}
		if r.read() == nil {
			importExport(t, r.export)
		}
	})
}

func importExport(t *testing.T, e *Export) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	v.Import(e, FromNeighbour)
	mustEncode(t, v.Export())
}
