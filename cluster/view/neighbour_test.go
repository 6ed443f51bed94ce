package view

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exportOf is a Exporter of one image.
type exportOf struct{ img *Export }

func (k exportOf) Export() *Export { return k.img }

// askOver asks a neighbour that knows img, over a pipe.
func askOne(t *testing.T, img *Export, name string) (*Export, error) {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeNeighbour(there, exportOf{img}) }()
	got, err := AskNeighbour(t.Context(), here, name)
	<-done
	return got, err
}

func TestRule26_ANeighbourTellsAllItKnows(t *testing.T) {
	got, err := askOne(t, fullExport(), "")
	if err != nil || !reflect.DeepEqual(got, fullExport()) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := askOne(t, new(Export), ""); !errors.Is(err, ErrKnowsNothing) {
		t.Errorf("%v, want ErrKnowsNothing", err)
	}
}

// A server has the contents of all, and may have been asked for each: a host would
// hold a large catalog for an hour.
func TestServeNeighbour_OfALargeCatalogItTellsWhatWasAskedForLast(t *testing.T) {
	now := time.Now().UTC()
	many := func(services int) *Export {
		f := newFleet(1000, services, services, 100)
		e := &Export{Current: Layer{Update: f.base()}, Asked: map[string]time.Time{}}
		e.Current.Whole, e.Current.Confirmed = true, false
		for u := range f.contents {
			e.Current.Parts = append(e.Current.Parts, u.Parts...)
		}
		for i, name := range f.names {
			e.Asked[name] = now.Add(time.Duration(-i) * time.Minute)
		}
		return e
	}
	const fit = maxTold / 100
	for _, tt := range []struct {
		what                     string
		services                 int
		whole                    bool
		complete, parts, askedOf int
	}{
		{"as many as fit", fit, true, 0, 100 * fit, fit},
		{"one more", fit + 1, false, fit, 100 * fit, fit},
		{"many more", 3 * fit, false, fit, 100 * fit, fit},
	} {
		e := many(tt.services)
		names := slices.Clone(e.Current.Names)
		got, err := askOne(t, e, "")
		if err != nil {
			t.Fatal(err)
		}
		c := got.Current
		if c.Whole != tt.whole || !slices.Equal(c.Names, names) || len(c.Complete) != tt.complete || len(c.Parts) != tt.parts || len(got.Asked) != tt.askedOf {
			t.Errorf("%s: whole %v, %d names, %d complete, %d parts, %d asked; want %v, %d, %d, %d, %d", tt.what, c.Whole, len(c.Names), len(c.Complete),
				len(c.Parts), len(got.Asked), tt.whole, len(names), tt.complete, tt.parts, tt.askedOf)
		}
		if !tt.whole && slices.Contains(c.Complete, names[fit]) {
			t.Errorf("%s: told is what was asked for before others", tt.what)
		}
	}
}

func TestRule11_ANeighbourIsAskedByName(t *testing.T) {
	got, err := askOne(t, fullExport(), "Web")
	if err != nil || len(got.Current.Parts) != 1 || got.Current.Reset {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := askOne(t, fullExport(), "nobody"); !errors.Is(err, ErrKnowsNothing) {
		t.Errorf("%v, want ErrKnowsNothing", err)
	}
	if _, err := askOne(t, fullExport(), strings.Repeat("x", 256)); err == nil {
		t.Error("a name of 256 octets was asked for")
	}
}

func TestAskNeighbour_ASilentOrBrokenOneIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		go func() { readQuestion(there) }()
		start := time.Now()
		if _, err := AskNeighbour(t.Context(), here, "web"); err == nil || time.Since(start) != askTimeout {
			t.Errorf("%v after %v, want an error after %v", err, time.Since(start), askTimeout)
		}

		here, other := net.Pipe()
		defer other.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := AskNeighbour(ctx, here, "web"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that it was cancelled", err)
		}

		for _, answer := range []string{"\x00\x00\x00\x05\x06junk", "\xff\xff\xff\xff\x06", "\x00\x00\x00\x05ju"} {
			here, there := net.Pipe()
			go func() {
				readQuestion(there)
				there.Write([]byte(answer))
				there.Close()
			}()
			if _, err := AskNeighbour(t.Context(), here, "web"); err == nil {
				t.Errorf("%q was taken", answer)
			}
		}
	})
}

func TestServeNeighbour_DoesNotWaitForAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		start := time.Now()
		if err := ServeNeighbour(there, exportOf{fullExport()}); err == nil || time.Since(start) != questionTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		asker, there := net.Pipe()
		defer asker.Close()
		go asker.Write(binary.BigEndian.AppendUint32(nil, 1<<30))
		if err := ServeNeighbour(there, exportOf{fullExport()}); err == nil {
			t.Error("a question of a gigabyte was taken")
		}
	})
}

func TestServeNeighbours_EndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeNeighbours(ctx, l, exportOf{fullExport()}, nil) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if img, err := AskNeighbour(t.Context(), conn, "db"); err != nil || len(img.Remembered.Parts) != 1 {
		t.Errorf("%+v, %v", img, err)
	}
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzServeNeighbour(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x06\x03\x01\x03web"))
	f.Add([]byte("\x00\x00\x00\x02\x03\x00"))
	f.Add([]byte("\x00\x00\x01\x00\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := readQuestion(bytes.NewReader(b))
		if err == nil {
			fullExport().Only(name)
		}
	})
}

// TestAskNeighbourV1_UnderstandsAHostThatIsNotUpgradedYet plays the neighbour from
// bytes that such a program wrote.
func TestAskNeighbourV1_UnderstandsAHostThatIsNotUpgradedYet(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "v1.view"))
	if err != nil {
		t.Fatal(err)
	}
	told := golden[bytes.LastIndex(golden, []byte(magicV1)) : len(golden)-sha256.Size]
	for name, tc := range map[string]struct {
		answer []byte
		want   *Export
		err    error
	}{
		"it knows something": {told, fullExport(), nil},
		"it knows nothing":   {nil, nil, ErrKnowsNothing},
		"garbage":            {told[:len(told)-1], nil, ErrDamaged},
	} {
		here, there := net.Pipe()
		asked := make(chan string, 1)
		go func() {
			question := make([]byte, 7)
			io.ReadFull(there, question)
			asked <- string(question)
			there.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(tc.answer))), tc.answer...))
			there.Close()
		}()
		got, err := AskNeighbourV1(t.Context(), here, "web")
		if !errors.Is(err, tc.err) || (tc.err == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		}
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if q := <-asked; q != "\x00\x00\x00\x03web" {
			t.Errorf("asked %q", q)
		}
	}
}
