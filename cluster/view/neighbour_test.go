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

// A server has the contents of all: a host would hold a large catalog for good.
func TestServeNeighbour_AServerTellsContentsThatItWasAskedFor(t *testing.T) {
	e := fullExport()
	e.Current.Whole, e.Current.Complete = true, nil
	names := slices.Clone(e.Current.Names)
	e.Asked = map[string]time.Time{"web": time.Now().UTC()}
	parts := len(e.Current.only("web").Parts)
	got, err := askOne(t, e, "")
	if err != nil || got.Current.Whole || !slices.Equal(got.Current.Names, names) || !slices.Equal(got.Current.Complete, []string{"web"}) ||
		parts == 0 || len(got.Current.Parts) != parts {
		t.Errorf("%+v, %v", got, err)
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
