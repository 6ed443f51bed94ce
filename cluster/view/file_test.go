package view

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/logtest"
)

const hostID = "3d7c1f40-0000-0000-0000-0000000000aa"

// keysOf is a keyring that the test changes.
type keysOf struct {
	mu      sync.Mutex
	keys    [][]byte
	changed chan struct{}
}

func keyring(keys ...string) *keysOf {
	k := &keysOf{}
	k.set(keys...)
	return k
}

func (k *keysOf) set(keys ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = nil
	for _, key := range keys {
		k.keys = append(k.keys, []byte(key))
	}
	if k.changed != nil {
		close(k.changed)
	}
	k.changed = make(chan struct{})
}

func (k *keysOf) Keys() ([][]byte, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.changed
}

// taken returns the lines since the last call, which begin with level.
func taken(log *logtest.Text, level string) (out []string) {
	for line := range strings.Lines(log.Take()) {
		if strings.Contains(line, "level="+level) {
			out = append(out, line)
		}
	}
	return out
}

func mustFile(t *testing.T, cfg FileConfig) (*File, *logtest.Text) {
	t.Helper()
	log := new(logtest.Text)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	if cfg.NodeID == "" {
		cfg.NodeID, cfg.Datacenter = hostID, "dc1"
	}
	f, err := NewFile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f, log
}

func mustSave(t *testing.T, f *File) {
	t.Helper()
	if _, err := f.save(fullExport(), false); err != nil {
		t.Fatal(err)
	}
}

func TestRule23_TheFileIsReadByItsOwnClusterAlone(t *testing.T) {
	ours := FileConfig{NodeID: hostID, Datacenter: "dc1", Keys: keyring("key one").Keys}
	with := func(change func(c *FileConfig)) FileConfig {
		c := ours
		change(&c)
		return c
	}
	for _, tc := range []struct {
		name string
		cfg  FileConfig
		want string // in the log; "" for a file that counts
	}{
		{"the same host", ours, ""},
		{"another primary key, the old one still in the ring", with(func(c *FileConfig) { c.Keys = keyring("key two", "key one").Keys }), ""},
		{"no key fits", with(func(c *FileConfig) { c.Keys = keyring("key two").Keys }), "no key of this host"},
		{"no keys at all", with(func(c *FileConfig) { c.Keys = nil }), "no key of this host"},
		{"another node ID: data_dir was lost", with(func(c *FileConfig) { c.NodeID = "other" }), ""},
		{"another datacenter", with(func(c *FileConfig) { c.Datacenter = "dc2" }), "in datacenter dc1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "deep", "view")
			ours, tc := ours, tc
			ours.Path, tc.cfg.Path = path, path
			f, _ := mustFile(t, ours)
			mustSave(t, f)
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v; want a file for this user alone", info.Mode(), err)
			}
			f, log := mustFile(t, tc.cfg)
			img := f.Load()
			said := taken(log, "ERROR")
			if tc.want == "" {
				if !reflect.DeepEqual(img, fullExport()) || len(said) > 0 {
					t.Errorf("%+v, said %q", img, said)
				}
				return
			}
			if img != nil || len(said) != 1 || !strings.Contains(said[0], tc.want) {
				t.Errorf("%+v, said %q; want nothing, and one line with %q", img, said, tc.want)
			}
			aside, _ := filepath.Glob(path + ".set-aside-*")
			if _, err := os.Stat(path); !os.IsNotExist(err) || len(aside) != 1 {
				t.Errorf("%v, %q; want the file set aside", err, aside)
			}
			mustSave(t, f) // filled anew
			if f.Load() == nil {
				t.Error("the new file does not count")
			}
		})
	}
}

func TestRule23_WithoutAKeyTheFileIsReadByItsOwnHostAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f, _ := mustFile(t, FileConfig{Path: path})
	mustSave(t, f)
	f, log := mustFile(t, FileConfig{Path: path, NodeID: "other", Datacenter: "dc1"})
	if img := f.Load(); img != nil {
		t.Error("another host's file counts, and nothing proves of which cluster it is")
	}
	if said := taken(log, "ERROR"); len(said) != 1 || !strings.Contains(said[0], "it is of node "+hostID) {
		t.Errorf("said %q", said)
	}
}

func TestRule23_AHostThatIsGivenAKeySetsItsViewAsideWithoutAlarm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "view")
	f, _ := mustFile(t, FileConfig{Path: path})
	mustSave(t, f)
	f, log := mustFile(t, FileConfig{Path: path, Keys: keyring("key one").Keys})
	if img := f.Load(); img != nil {
		t.Error("what no key proves counts")
	}
	if said := taken(log, "INFO"); len(said) != 1 || !strings.Contains(said[0], "before this host had a key") {
		t.Errorf("said %q", said)
	}
	if said := taken(log, "ERROR"); len(said) > 0 {
		t.Errorf("said %q", said)
	}
	if aside, _ := filepath.Glob(path + ".set-aside-*"); len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
}

func TestRule23_ADamagedFileIsSetAsideAndSaid(t *testing.T) {
	synctest.Test(t, testDamage) // names of files set aside differ by time
}

func testDamage(t *testing.T) {
	f, log := mustFile(t, FileConfig{Path: filepath.Join(t.TempDir(), "view"), Keys: keyring("key").Keys})
	mustSave(t, f)
	good, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		keys, _ := f.keys()
		if img, _, err := open(bad, keys); err == nil {
			t.Fatalf("byte %d changed, and read: %+v", i, img)
		}
		if img, _, err := open(good[:i], keys); err == nil {
			t.Fatalf("cut to %d bytes, and read: %+v", i, img)
		}
	}
	for i, bad := range [][]byte{nil, good[:20], good[:len(good)-1], append(slices.Clone(good), 0), bytes.Repeat([]byte{0xff}, 100)} {
		if err := os.WriteFile(f.cfg.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		img, said := f.Load(), taken(log, "ERROR")
		if img != nil || len(said) != 1 || !strings.Contains(said[0], "set aside") {
			t.Errorf("%d: %+v, said %q", i, img, said)
		}
	}
	if aside, _ := filepath.Glob(f.cfg.Path + ".set-aside-*"); len(aside) != maxAside {
		t.Errorf("%d files set aside are kept, want %d", len(aside), maxAside)
	}
	if f.Load() != nil || len(taken(log, "ERROR")) != 0 {
		t.Error("no file is no error")
	}
}

// scene is a View as far as a File knows it, in a bubble.
type scene struct {
	t    *testing.T
	view *View
	file *File
	log  *logtest.Text
	seen time.Time
	beat bool // a server confirms the view
	end  func()
}

// run starts a File on a view.
func run(t *testing.T, cfg FileConfig, v *View) *scene {
	f, log := mustFile(t, cfg)
	ctx, cancel := contextOf(t)
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, v) }()
	synctest.Wait()
	return &scene{t: t, view: v, file: f, log: log, end: func() { cancel(); <-done }}
}

// written reports whether the file has been written since the last call.
func (s *scene) written() bool {
	synctest.Wait()
	b, err := os.ReadFile(s.file.cfg.Path)
	if err != nil {
		return false
	}
	keys, _ := s.file.keys()
	_, of, err := open(b, keys)
	if err != nil {
		s.t.Fatal(err)
	}
	written := !of.Written.Equal(s.seen)
	s.seen = of.Written
	return written
}

// after reports how long it takes, of a second's parts up to limit, until the
// file is written; -1: it isn't.
func (s *scene) after(limit time.Duration) time.Duration {
	start := time.Now()
	for {
		if s.written() {
			return time.Since(start)
		}
		if time.Since(start) >= limit {
			return -1
		}
		time.Sleep(100 * time.Millisecond)
		if s.beat {
			mustTake(s.t, s.view, catalog.Update{Confirmed: true})
		}
	}
}

func TestRule24_TheFileIsWrittenWhenItShouldBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		ctx, cancel := contextOf(t)
		ran := make(chan error, 1)
		go func() { ran <- v.Run(ctx) }()
		ring := keyring("key one")
		s := run(t, FileConfig{Path: filepath.Join(t.TempDir(), "view"), Keys: ring.Keys}, v)
		want := func(what string, got, low, high time.Duration) {
			t.Helper()
			if got < low || got > high {
				t.Errorf("%s: written after %v, want %v to %v", what, got, low, high)
			}
		}
		web := service("web", 80)
		if s.after(time.Minute) != -1 {
			t.Error("written before anything is known")
		}
		mustTake(t, v, confirmed(whole(5, node("n1", "10.0.0.1", web))))
		want("the first base set", s.after(time.Second), 0, 0)

		s.beat = true
		mustTake(t, v, confirmed(update(6, node("n1", "10.0.0.2", web))))
		want("a change", s.after(time.Minute), 25*time.Second, 30*time.Second)
		mustTake(t, v, confirmed(update(7, node("n1", "10.0.0.2", web))))
		mustTake(t, v, confirmed(update(8, node("n1", "10.0.0.2", web, service("db", 1)))))
		want("a new name", s.after(time.Minute), 0, time.Second)
		s.beat = false
		want("the loss of the servers", s.after(time.Minute), StaleAfter-100*time.Millisecond, StaleAfter)
		if s.after(10*time.Minute) != -1 {
			t.Error("written without a change")
		}

		ring.set("key two", "key one")
		want("another primary key", s.after(time.Second), 0, 0)
		ring.set("key two")
		if s.after(time.Second) != -1 {
			t.Error("written when another key left")
		}
		mustTake(t, v, confirmed(update(9, node("n1", "10.0.0.3", web))))
		s.end()
		want("the end", s.after(0), 0, 0)
		img := s.file.Load()
		if img == nil || img.Current.Index != 9 {
			t.Errorf("%+v, want what was known at the end", img)
		}
		cancel()
		<-ran
	})
}

// costly is a view of which nothing is known but how it changes, and that an export
// takes time.
type costly struct {
	state   atomic.Pointer[State]
	cost    time.Duration
	exports atomic.Int64
}

func (c *costly) Load() *State { return c.state.Load() }

func (c *costly) Export() *Export {
	c.exports.Add(1)
	time.Sleep(c.cost) // of fake time: what an export takes
	return fullExport()
}

func (c *costly) change(change func(s *State)) {
	old := c.state.Load()
	s := &State{base: true, fresh: true, filled: old.filled, superseded: make(chan struct{})}
	change(s)
	c.state.Store(s)
	close(old.superseded)
}

func TestRule24_ThePaceOfWritingFollowsWhatAWriteCosts(t *testing.T) {
	const long = 20 * time.Minute
	for _, tc := range []struct {
		name        string
		cost        time.Duration
		every       time.Duration // a new name comes; 0: none. There are changes without beside
		least, most int64         // writes
	}{
		{"an ordinary host, a new name each minute", 10 * time.Millisecond, time.Minute, 40, 61},
		{"an ordinary host, new names all the time", 10 * time.Millisecond, 700 * time.Millisecond, 800, 1500},
		{"a server, a new name each minute", 200 * time.Millisecond, time.Minute, 20, 27},
		{"a server that is being filled", 200 * time.Millisecond, 100 * time.Millisecond, 110, 121},
		{"a machine that stood still during a write", 3 * time.Second, 100 * time.Millisecond, 36, 41},
		{"a server, changes alone", 200 * time.Millisecond, 0, 6, 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // twenty minutes of fake time, all sleeps included
				v := &costly{cost: tc.cost}
				v.state.Store(&State{superseded: make(chan struct{})})
				f, _ := mustFile(t, FileConfig{Path: filepath.Join(t.TempDir(), "view")})
				ctx, cancel := contextOf(t)
				done := make(chan error, 1)
				go func() { done <- f.Run(ctx, v) }()
				synctest.Wait()
				v.change(func(*State) {})
				last := time.Now()
				for end := last.Add(long); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					fill := tc.every > 0 && time.Since(last) >= tc.every
					if fill {
						last = time.Now()
					}
					v.change(func(s *State) {
						if fill {
							s.filled++
						}
					})
				}
				if wrote := v.exports.Load(); wrote < tc.least || wrote > tc.most {
					t.Errorf("%d writes in %v, want %d to %d", wrote, long, tc.least, tc.most)
				}
				time.Sleep(2 * tc.cost) // a write may be under way
				wrote := v.exports.Load()
				v.change(func(s *State) { s.fresh = false })
				if synctest.Wait(); v.exports.Load() == wrote {
					t.Error("not written at once when the servers were lost")
				}
				cancel()
				<-done
			})
		})
	}
}

func TestRule24_AHostWithoutItsFileWritesOneForWhatItAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		v.Import(fullExport(), FromNeighbour)
		s := run(t, FileConfig{Path: filepath.Join(t.TempDir(), "view")}, v)
		if s.after(0) != 0 {
			t.Error("not written")
		}
		s.end()
	})
}

func TestFile_ADiskThatFailsIsSaidOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cache")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder should be
			t.Fatal(err)
		}
		v := mustNew(t, Config{})
		s := run(t, FileConfig{Path: filepath.Join(dir, "view")}, v)
		mustTake(t, v, confirmed(whole(5, node("n1", "10.0.0.1", service("web", 80)))))
		for i := range 600 {
			time.Sleep(time.Second)
			mustTake(t, v, confirmed(update(uint64(6+i), node("n1", fmt.Sprintf("10.0.%d.%d", i/250, i%250), service("web", 80)))))
		}
		synctest.Wait()
		if said := taken(s.log, "ERROR"); len(said) != 1 || !strings.Contains(said[0], "cannot be written") {
			t.Errorf("said %q, want one line", said)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if s.after(lastRetry) == -1 {
			t.Error("not tried again")
		}
		if said := taken(s.log, "INFO"); len(said) != 1 || !strings.Contains(said[0], "again") {
			t.Errorf("said %q, want that it is well again", said)
		}
		s.end()
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
			t.Errorf("files left: %q", left)
		}
	})
}

func TestRule25_NothingIsDroppedByAgeWhileStale(t *testing.T) {
	f, _ := mustFile(t, FileConfig{Path: filepath.Join(t.TempDir(), "view"), Keep: time.Hour}) // the image was asked for in March
	for _, fresh := range []bool{false, true} {
		if _, err := f.save(fullExport(), fresh); err != nil {
			t.Fatal(err)
		}
		if img := f.Load(); (len(img.Current.Parts) == 0) != fresh {
			t.Errorf("fresh %v: %d parts", fresh, len(img.Current.Parts))
		}
	}
}

func TestNewFile_WantsAPathAndAnID(t *testing.T) {
	for _, cfg := range []FileConfig{{NodeID: "x"}, {Path: "x"}} {
		if _, err := NewFile(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func FuzzOpen(f *testing.F) {
	of := owner{NodeID: hostID, Datacenter: "dc1", Written: time.Unix(1, 0)}
	good := mustSeal(f, fullExport(), of, []byte("key"))
	f.Add(good)
	f.Add(good[:len(sealMagic)+3])
	f.Add([]byte{})
	huge := slices.Clone(good)
	binary.BigEndian.PutUint16(huge[len(sealMagic)+1:], 0xffff)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := open(b, [][]byte{[]byte("key")}); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("%q was taken for a sealed image", b)
		}
	})
}
