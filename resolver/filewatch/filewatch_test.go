package filewatch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	must(t, os.WriteFile(file, []byte(text), 0o600))
}

// Each change is told of well before the next look that comes without one.
func TestRun_TellsOfChanges(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("d/a"), "1")
	write(t, at("f"), "1")
	write(t, at("v1/b"), "1")
	write(t, at("v2/b"), "2")
	must(t, os.Symlink(at("v1"), at("now")))
	must(t, os.Symlink(at("now/b"), at("d/b"))) // as where files are mounted and switched by a link
	write(t, at("elsewhere/c"), "1")
	must(t, os.Symlink(at("elsewhere/c"), at("d/c")))

	changed := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, Config{What: "files", Files: []string{at("d"), at("f"), at("later/g")}, Settle: 10 * time.Millisecond,
			Logger: slog.New(slog.DiscardHandler), Changed: func() { changed <- struct{}{} }})
	}()
	tell := func(what string) {
		t.Helper()
		begin := time.Now()
		select {
		case <-changed:
			if took := time.Since(begin); took > statInterval/2 {
				t.Errorf("%s: told after %v", what, took)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: not told", what)
		}
	}
	tell("the start")
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a file written", func() { write(t, at("f"), "2") }},
		{"a file in a directory written", func() { write(t, at("d/a"), "2") }},
		{"a file added", func() { write(t, at("d/new"), "") }},
		{"a file removed", func() { must(t, os.Remove(at("d/new"))) }},
		{"a file renamed over another", func() { write(t, at("tmp"), "3"); must(t, os.Rename(at("tmp"), at("d/a"))) }},
		{"a link switched", func() { must(t, os.Symlink(at("v2"), at("next"))); must(t, os.Rename(at("next"), at("now"))) }},
		{"what a link leads to written", func() { write(t, at("elsewhere/c"), "2") }},
	} {
		for len(changed) > 0 {
			<-changed
		}
		step.do()
		tell(step.what)
	}
	stop()
	<-ended
}
