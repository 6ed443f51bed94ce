package view

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// imageOf is a Knower of one image.
type imageOf struct{ img *Image }

func (k imageOf) Image() *Image { return k.img }

// askOver asks a neighbour that knows img, over a pipe.
func askOver(t *testing.T, img *Image, name string) (*Image, error) {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeNeighbour(there, imageOf{img}) }()
	got, err := AskNeighbour(t.Context(), here, name)
	<-done
	return got, err
}

func TestRule26_ANeighbourTellsAllItKnows(t *testing.T) {
	got, err := askOver(t, fullImage(), "")
	if err != nil || !reflect.DeepEqual(got, fullImage()) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := askOver(t, new(Image), ""); !errors.Is(err, ErrKnowsNothing) {
		t.Errorf("%v, want ErrKnowsNothing", err)
	}
}

func TestRule11_ANeighbourIsAskedByName(t *testing.T) {
	got, err := askOver(t, fullImage(), "Web")
	if err != nil || len(got.Current.Parts) != 1 || got.Current.Base {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := askOver(t, fullImage(), "nobody"); !errors.Is(err, ErrKnowsNothing) {
		t.Errorf("%v, want ErrKnowsNothing", err)
	}
	if _, err := askOver(t, fullImage(), strings.Repeat("x", 256)); err == nil {
		t.Error("a name of 256 octets was asked for")
	}
}

func TestAskNeighbour_ASilentOrBrokenOneIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		go func() { readFrame(there, maxQuestion) }()
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

		for _, answer := range []string{"\x00\x00\x00\x05junk!", "\xff\xff\xff\xff", "\x00\x00\x00\x05ju"} {
			here, there := net.Pipe()
			go func() {
				readFrame(there, maxQuestion)
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
		if err := ServeNeighbour(there, imageOf{fullImage()}); err == nil || time.Since(start) != questionTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		asker, there := net.Pipe()
		defer asker.Close()
		go asker.Write(binary.BigEndian.AppendUint32(nil, 1<<30))
		if err := ServeNeighbour(there, imageOf{fullImage()}); err == nil {
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
	go func() { done <- ServeNeighbours(ctx, l, imageOf{fullImage()}, nil) }()
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
	f.Add([]byte("\x00\x00\x00\x03web"))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := readFrame(strings.NewReader(string(b)), maxQuestion)
		if err == nil {
			fullImage().Only(string(name))
		}
	})
}
