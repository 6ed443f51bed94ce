package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents returns what is in the files of dir, oldest first.
func contents(t *testing.T, dir string) (names, texts []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		names, texts = append(names, e.Name()), append(texts, string(b))
	}
	return names, texts
}

// clock is a time that the test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { c.Time = c.Add(1); return c.Time } // no two files of one name

func testFile(cfg File) (*file, *clock) {
	w, c := newFile(cfg), &clock{time.Unix(1700000000, 0)}
	w.now = c.now
	return w, c
}

func say(t *testing.T, w writer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if written, err := w.write(line{text: []byte(text)}); err != nil || !written {
			t.Fatalf("%q: written %v, %v", text, written, err)
		}
	}
}

func TestFile_NamesAreConsuls(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir + "/":             "meibo-N.log",
		dir:                   "meibo-N.log",
		dir + "/host.log":     "host-N.log",
		dir + "/host":         "host-N.log",
		dir + "/host.txt":     "host-N.txt",
		dir + "/a.b.log":      "a.b-N.log",
		dir + "/new/":         "meibo-N.log",
		dir + "/new/deep/x":   "x-N.log",
		dir + "/new/deep/x.y": "x-N.y",
	} {
		w, _ := testFile(File{Path: path})
		say(t, w, "one\n")
		got := w.f.Name()
		must(t, w.Close())
		must(t, os.Remove(got))
		digits := strings.Trim(filepath.Base(got), "abcdefghijklmnopqrstuvwxyz.-")
		if len(digits) != len("1700000000000000000") {
			t.Errorf("%s: %s has no time in nanoseconds", path, got)
		}
		if name := strings.Replace(filepath.Base(got), digits, "N", 1); name != want {
			t.Errorf("%s: got %s, want %s", path, name, want)
		}
	}
}

func TestFile_RotatesByBytesDurationAndCount(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  File
		want []string
	}{
		{"bytes", File{Bytes: 8}, []string{"11111\n22222\n", "33333\n44444\n", "55555\n"}},
		{"two are kept", File{Bytes: 1, MaxFiles: 2}, []string{"33333\n", "44444\n", "55555\n"}},
		{"none is kept", File{Bytes: 1, MaxFiles: -1}, []string{"55555\n"}},
		{"no bounds", File{}, []string{"11111\n22222\n33333\n44444\n55555\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.cfg.Path = dir + "/"
			others := []string{"meibo-.log", "meibo-12x.log", "meibo-latest.log", "other-1.log"}
			for _, name := range others {
				must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			}
			w, _ := testFile(tt.cfg)
			say(t, w, "11111\n", "22222\n", "33333\n", "44444\n", "55555\n")
			must(t, w.Close())
			for _, name := range others { // what isn't ours is left alone
				must(t, os.Remove(filepath.Join(dir, name)))
			}
			if _, got := contents(t, dir); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("duration", func(t *testing.T) {
		for _, tt := range []struct {
			every, pass time.Duration
			files       int
		}{{time.Minute, 59 * time.Second, 1}, {time.Minute, time.Minute, 2}, {0, 23 * time.Hour, 1}, {0, 24 * time.Hour, 2}} {
			dir := t.TempDir()
			w, c := testFile(File{Path: dir + "/", Duration: tt.every})
			say(t, w, "a\n")
			c.Time = c.Add(tt.pass)
			say(t, w, "b\n")
			must(t, w.Close())
			if names, _ := contents(t, dir); len(names) != tt.files {
				t.Errorf("every %s, after %s: %q", tt.every, tt.pass, names)
			}
		}
	})
	t.Run("files of an earlier run count", func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"meibo-1.log", "meibo-20.log", "meibo-3.log"} {
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
		w, _ := testFile(File{Path: dir + "/", MaxFiles: 1})
		say(t, w, "a\n")
		must(t, w.Close())
		if names, _ := contents(t, dir); len(names) != 2 || names[1] != "meibo-20.log" {
			t.Errorf("left: %q", names)
		}
	})
}

func TestFile_OneThatWasTakenAwayIsBegunAnew(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, w *file){
		"file removed":      func(t *testing.T, w *file) { must(t, os.Remove(w.f.Name())) },
		"file renamed":      func(t *testing.T, w *file) { must(t, os.Rename(w.f.Name(), w.f.Name()+".1")) },
		"directory removed": func(t *testing.T, w *file) { must(t, os.RemoveAll(filepath.Dir(w.f.Name()))) },
		"another in its place": func(t *testing.T, w *file) {
			must(t, os.Rename(w.f.Name(), w.f.Name()+".1"))
			must(t, os.WriteFile(w.f.Name(), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := testFile(File{Path: filepath.Join(t.TempDir(), "logs") + "/"})
			say(t, w, "before\n")
			take(t, w)
			say(t, w, "after\n")
			b, err := os.ReadFile(w.f.Name())
			if must(t, w.Close()); err != nil || string(b) != "after\n" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

func TestFile_ARotationThatFailsGoesOnInTheOldFile(t *testing.T) {
	dir := t.TempDir()
	w, _ := testFile(File{Path: dir + "/logs/x", Bytes: 1})
	say(t, w, "one\n")
	old := w.f.Name()
	w.dir = filepath.Join(old, "no-directory") // as root, no permission refuses
	if written, err := w.write(line{text: []byte("two\n")}); !written || err == nil {
		t.Errorf("written %v, %v", written, err)
	}
	b, err := os.ReadFile(old)
	if must(t, w.Close()); err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

func lost(l *Log) string {
	var b strings.Builder
	for _, p := range l.places {
		fmt.Fprintf(&b, "%s %d ", p.name, p.lost.Load())
	}
	return strings.TrimSpace(b.String())
}

func TestLog_AFileThatCannotBeOpenedIsSaidAndTriedAgain(t *testing.T) {
	var stderr bytes.Buffer
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "logs"), nil, 0o600)) // in the way
	l := New(Config{Stderr: &stderr, File: File{Path: dir + "/logs/"}})
	l.Logger().Info("first")
	w := l.places[1]
	eventually(t, func() bool { return w.lost.Load() >= 2 }) // first, and what was said of it
	must(t, os.Remove(filepath.Join(dir, "logs")))
	l.Logger().Info("second")
	eventually(t, func() bool {
		names, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
		if len(names) != 1 {
			return false
		}
		b, _ := os.ReadFile(names[0])
		return bytes.Contains(b, []byte("written again"))
	})
	l.Close()
	_, texts := contents(t, filepath.Join(dir, "logs"))
	if text := texts[0]; !strings.Contains(text, "msg=second") || !strings.Contains(text, "written again") || !strings.Contains(text, "lost_lines=2") {
		t.Errorf("the file has\n%s", text)
	}
	if n := strings.Count(stderr.String(), "level=ERROR"); n != 1 || !strings.Contains(stderr.String(), "to=file") {
		t.Errorf("said %d times:\n%s", n, &stderr)
	}
	if got := lost(l); got != "stderr 0 file 2" {
		t.Errorf("lost: %s", got)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(l)
	families, err := registry.Gather()
	must(t, err)
	for _, m := range families[0].GetMetric() {
		if want := map[string]float64{"file": 2}[m.GetLabel()[0].GetValue()]; m.GetCounter().GetValue() != want {
			t.Errorf("%s: the metric is %v, want %v", families[0].GetName(), m, want)
		}
	}
}

func TestLog_AFullDiskLosesLinesAndNothingElse(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full on this system")
	}
	defer full.Close()
	dir := t.TempDir()
	l := New(Config{Stderr: full, File: File{Path: dir + "/"}})
	l.Logger().Info("hello")
	eventually(t, func() bool { return l.places[0].lost.Load() == 2 })
	l.Close()
	if _, texts := contents(t, dir); !strings.Contains(texts[0], "msg=hello") || !strings.Contains(texts[0], "to=stderr") || !strings.Contains(texts[0], "no space left") {
		t.Errorf("the file has\n%s", texts[0])
	}
	device := New(Config{Stderr: new(bytes.Buffer), File: File{Path: "/dev/full"}})
	device.Logger().Info("hello")
	eventually(t, func() bool { return device.places[1].lost.Load() == 2 })
	device.Close()
}

// A reader that doesn't read must not hold up who logs.
func TestLog_AReaderThatStallsHoldsNobodyUp(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	l := New(Config{Stderr: w})
	text := strings.Repeat("x", 1000)
	for range 3 * waiting {
		l.Logger().Info(text)
	}
	if l.places[0].lost.Load() == 0 {
		t.Error("a pipe took 3 MB that nobody read")
	}
	go func() { _ = r.Close() }() // and then it ends
	l.Close()
	<-l.places[0].done
}

func TestLog_LevelsByPart(t *testing.T) {
	for _, tt := range []struct {
		level slog.Level
		parts map[string]slog.Level
		want  []slog.Level
	}{
		{slog.LevelWarn, nil, []slog.Level{slog.LevelWarn, slog.LevelError}},
		{slog.LevelWarn, map[string]slog.Level{"meibo": slog.LevelDebug}, []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}},
		{slog.LevelDebug, map[string]slog.Level{"logging": slog.LevelError}, []slog.Level{slog.LevelError}},
		{slog.LevelDebug, map[string]slog.Level{"agent": slog.LevelError}, []slog.Level{slog.LevelError}},
		{slog.LevelError, map[string]slog.Level{"agent.meibo.logging": slog.LevelWarn, "cluster": slog.LevelDebug}, []slog.Level{slog.LevelWarn, slog.LevelError}},
	} {
		var out bytes.Buffer
		l := New(Config{Level: tt.level, Sublevels: tt.parts, Stderr: &out})
		log := l.Logger().With("a", 1).WithGroup("g")
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), level, "hello")
		}
		l.Close()
		var got []slog.Level
		for text := range strings.Lines(out.String()) {
			_, rest, _ := strings.Cut(text, "level=")
			name, _, _ := strings.Cut(rest, " ")
			var level slog.Level
			must(t, level.UnmarshalText([]byte(name)))
			got = append(got, level)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v, %v: got %v, want %v", tt.level, tt.parts, got, tt.want)
		}
	}
}

func TestPart(t *testing.T) {
	for name, want := range map[string]string{
		"agent": "", "agent.server.serf": "cluster.gossip", "agent.http": "cluster.httpapi", "agent.forwarder": "forwarder", "agent.view": "cluster.view",
		"cluster.gossip": "cluster.gossip", "gossip": "cluster.gossip", "raft": "cluster.consensus", "Resolver": "resolver",
	} {
		if got, ok := Part(name); got != want || !ok {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, want)
		}
	}
	for name, want := range consuls {
		if !slices.Contains(parts, want) {
			t.Errorf("%s stands for %q, which is none", name, want)
		}
	}
	if part, ok := Part("envoy"); ok {
		t.Errorf("envoy is %q", part)
	}
	for function, want := range map[string]string{
		"meibo/cluster/gossip.(*Gossip).run.func1": "cluster.gossip", "main.runAgent": "meibo", "meibo/cmd/meibo/config.Load": "meibo.config",
		"meibo/cmd/meibo.TestX": "meibo", "github.com/hashicorp/memberlist.(*M).x": "github.com.hashicorp.memberlist",
	} {
		if got := partOf(function); got != want {
			t.Errorf("%s: got %q, want %q", function, got, want)
		}
	}
}

func TestSyslog_UnreachableIsSaidAndTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := newSyslog("LOCAL3").(*toSyslog)
	s.network, s.address = "unixgram", path
	if written, err := s.write(line{text: []byte("lost\n")}); written || err == nil {
		t.Errorf("written %v, %v, though nobody is there", written, err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	receive := func() string {
		b := make([]byte, 1000)
		must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := conn.Read(b)
		must(t, err)
		return string(b[:n])
	}
	for level, want := range map[slog.Level]string{slog.LevelError: "<155>", slog.LevelWarn: "<156>", slog.LevelInfo: "<158>", slog.LevelDebug: "<159>"} {
		if written, err := s.write(line{text: []byte("time=2026-01-01T00:00:00Z level=X msg=hello\n"), level: level}); err != nil || !written {
			t.Fatal(err)
		}
		if got := receive(); !strings.HasPrefix(got, want) || !strings.Contains(got, " meibo[") || !strings.HasSuffix(got, ": level=X msg=hello\n") {
			t.Errorf("%v: got %q", level, got)
		}
	}
	// syslog is restarted
	must(t, conn.Close())
	_ = os.Remove(path)
	if written, err := s.write(line{text: []byte("lost\n")}); written || err == nil {
		t.Errorf("written %v, %v, though nobody is there", written, err)
	}
	conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	say(t, s, "back\n")
	if got := receive(); !strings.Contains(got, "back") {
		t.Errorf("got %q", got)
	}
	must(t, s.Close())
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for begin := time.Now(); !condition(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("not within 20 s")
		}
		<-time.After(time.Millisecond)
	}
}
