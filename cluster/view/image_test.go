package view

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
)

var updateGolden = flag.Bool("update", false, "write the golden image anew; that of a released version must not change")

var goldenImage = filepath.Join("testdata", "v1.image")

// fullImage has everything that an image can have.
func fullImage() *Image {
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
	return &Image{
		Current: Told{
			History: catalog.History{ID: "h2", Base: 1 << 40}, Index: 1<<40 + 12, Confirmed: at(2), Base: true,
			Nodes: []catalog.NodeState{n1}, Names: []string{"mail", "web"}, Parts: []catalog.Part{web}, Complete: []string{"web"},
			Tombstones: []catalog.Tombstone{{Node: "gone"}, {Node: "ext", ServiceID: "web"}},
		},
		Remembered: Told{
			Confirmed: at(1), Base: true, Nodes: []catalog.NodeState{old}, Names: []string{"cache"}, Parts: []catalog.Part{db},
		},
		Asked: map[string]time.Time{"web": at(2), "db": at(1)},
		Lives: []LifeOf{{NodeID: n1.Node.ID, Name: "N1", Life: Alive, Since: at(1)}, {NodeID: "x", Name: "x", Life: Left}},
	}
}

func mustMarshal(t testing.TB, img *Image) []byte {
	t.Helper()
	b, err := img.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestImage_GoldenOfVersion1IsReadAndWritten(t *testing.T) {
	b := mustMarshal(t, fullImage())
	if *updateGolden {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenImage, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(goldenImage)
	if err != nil {
		t.Fatal(err)
	}
	var img Image
	if err := img.UnmarshalBinary(golden); err != nil {
		t.Fatal(err)
	}
	if want := fullImage(); !reflect.DeepEqual(&img, want) {
		t.Errorf("read %+v\nwant %+v", &img, want)
	}
	if !slices.Equal(b, golden) {
		t.Error("the same image is written otherwise than it was: give it a new version")
	}
}

func TestImage_AnyChangedOrMissingByteIsNoticed(t *testing.T) {
	good := mustMarshal(t, fullImage())
	for i := range good {
		img := Image{Asked: map[string]time.Time{"kept": {}}}
		bad := slices.Clone(good)
		bad[i] ^= 0x40
		if img.UnmarshalBinary(bad) == nil {
			t.Fatalf("byte %d changed, and read", i)
		}
		if err := img.UnmarshalBinary(good[:i]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v, want ErrDamaged", i, err)
		}
		if len(img.Asked) != 1 {
			t.Fatal("the image changed on an error")
		}
	}
	if err := new(Image).UnmarshalBinary(append(slices.Clone(good), 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
}

func TestImage_OfANewerProgramIsNotCalledDamaged(t *testing.T) {
	b := mustMarshal(t, fullImage())
	b[len(imageMagic)]++
	if err := new(Image).UnmarshalBinary(b); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("%v, want that version 2 is unknown", err)
	}
}

func TestImage_WhatIsTooLargeIsRefused(t *testing.T) {
	img := fullImage()
	img.Current.Parts[0].Checks[0].Output = strings.Repeat("x", maxRecord+1)
	if _, err := img.MarshalBinary(); err == nil {
		t.Error("a record beyond the bound was written")
	}
}

func TestImage_OnlyOneServiceHasItsNodesAndLives(t *testing.T) {
	only := fullImage().Only("WEB")
	if only.Current.Base || len(only.Current.Nodes) != 1 || len(only.Current.Parts) != 1 || !slices.Equal(only.Current.Complete, []string{"web"}) ||
		len(only.Remembered.Nodes) != 0 || len(only.Lives) != 1 || len(only.Asked) != 1 {
		t.Errorf("%+v", only)
	}
	if only := fullImage().Only("db"); len(only.Current.Nodes) != 0 || len(only.Remembered.Nodes) != 1 {
		t.Errorf("%+v", only)
	}
	if only := fullImage().Only("nobody"); !only.IsEmpty() {
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
			img := fullImage()
			img.Current.Whole = tc.whole
			img.Asked = map[string]time.Time{"db": now}
			if tc.asked != -1 {
				img.Asked["web"] = now.Add(-tc.asked)
			}
			img.dropUnasked(now, DefaultKeep)
			if has := len(img.Current.Parts) == 1; has != tc.has || slices.Contains(img.Current.Complete, "web") != tc.has {
				t.Errorf("contents kept: %v, want %v", has, tc.has)
			}
			if len(img.Current.Names) != 2 || len(img.Current.Nodes) != 1 || len(img.Remembered.Parts) != 1 {
				t.Error("more than contents was dropped")
			}
			if _, ok := img.Asked["web"]; ok != tc.has {
				t.Errorf("asked %v", maps.Collect(maps.All(img.Asked)))
			}
			if tc.askedNow && !img.Asked["web"].Equal(now) {
				t.Errorf("asked %v, want now", img.Asked["web"])
			}
		})
	}
}

func FuzzImage(f *testing.F) {
	full := mustMarshal(f, fullImage())
	f.Add(full)
	f.Add(mustMarshal(f, fullImage().Only("web")))
	f.Add(mustMarshal(f, new(Image)))
	f.Add(full[:len(full)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var img Image
		if img.UnmarshalBinary(b) == nil {
			again := mustMarshal(t, &img)
			if err := new(Image).UnmarshalBinary(again); err != nil {
				t.Fatalf("what was read and written can't be read: %v", err)
			}
		}
		// Past the checksum, which hides the records from a fuzzer.
		r := &imageReader{rest: b, into: Image{Asked: make(map[string]time.Time)}}
		if r.read() != nil {
			return
		}
		v, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		v.Adopt(&r.into, FromNeighbour)
		mustMarshal(t, v.Image())
	})
}
