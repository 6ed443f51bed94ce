package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// filled makes a directory with so many entries in its log, and a snapshot
// of the first of them if asked for.
func filled(t *testing.T, entries, snapshotAfter int) string {
	t.Helper()
	dir := t.TempDir()
	p := run(t, dir, nil)
	p.awaitLeader()
	for i := range entries {
		p.mustApply(fmt.Sprintf("entry %d %s", i, strings.Repeat("x", 200)))
		if i+1 == snapshotAfter {
			if err := p.raft.Load().Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustChange(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func beginAnew(c *Config, _ *Replica) { c.OnDamage = BeginAnew }

// copyDir gives each case files of its own.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestCutLog_IsSaidAndSetAsideOnlyIfAllowed(t *testing.T) {
	whole := filled(t, 50, 0)
	flip := func(needle string) func([]byte) []byte {
		return func(b []byte) []byte {
			for i := 0; ; i++ { // every copy, the pages of former transactions too
				at := bytes.Index(b, []byte(needle))
				if at < 0 {
					return b
				}
				b[at] ^= 1
			}
		}
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		say    string
	}{
		{"cut in half", func(b []byte) []byte { return b[:len(b)/2] }, "cut short"},
		{"cut to two pages", func(b []byte) []byte { return b[:8192] }, "cut short"},
		{"cut behind its first meta page", func(b []byte) []byte { return b[:100] }, "cut short"},
		{"cut in its first meta page", func(b []byte) []byte { return b[:50] }, "meta pages"},
		{"no bbolt file", func([]byte) []byte { return []byte("hello") }, "meta pages"},
		{"both meta pages zeroed", func(b []byte) []byte { clear(b[:8192]); return b }, "meta pages"},
		{"a byte of a value flipped", flip("entry 7 "), "entry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyDir(t, whole)
			mustChange(t, filepath.Join(dir, fileLog), tt.change)
			p := run(t, copyDir(t, dir), nil)
			err := p.ended()
			if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrIDRetired) || !strings.Contains(err.Error(), tt.say) || !strings.Contains(err.Error(), fileLog) {
				t.Errorf("refusing: got %v, want it to name %s and say %q", err, fileLog, tt.say)
			}
			if len(p.SetAside()) != 2 {
				t.Errorf("refusing: set aside %v, want log and snapshots", p.SetAside())
			}
			p = run(t, dir, beginAnew)
			p.awaitLeader()
			p.mustApply("new")
			aside := p.SetAside()
			if len(aside) != 1 || !strings.HasPrefix(filepath.Base(aside[0]), fileLog+".bad-") {
				t.Fatalf("set aside: got %v, want the log", aside)
			}
			if _, err := os.Stat(aside[0]); err != nil {
				t.Error(err)
			}
			if err := p.end(); err != nil {
				t.Error(err)
			}
			p = run(t, dir, beginAnew)
			p.awaitLeader()
			if len(p.SetAside()) > 0 {
				t.Errorf("at the next start: set aside %v again", p.SetAside())
			}
		})
	}
}

// Whatever page is lost: either everything is there, or it is said. Losing a
// meta page may lose the last transaction, as it would be after a crash in
// the midst of it.
func TestZeroPage_IsNeverSilent(t *testing.T) {
	const entries = 120
	whole := filled(t, entries, 0)
	info, err := os.Stat(filepath.Join(whole, fileLog))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	fill := map[string]byte{"zero": 0, "ones": 0xff}
	said := 0
	for n := range int(info.Size()) / page {
		for name, octet := range fill {
			t.Run(fmt.Sprintf("page %d %s", n, name), func(t *testing.T) {
				dir := copyDir(t, whole)
				mustChange(t, filepath.Join(dir, fileLog), func(b []byte) []byte {
					copy(b[n*page:(n+1)*page], bytes.Repeat([]byte{octet}, page))
					return b
				})
				sm := new(list)
				r, err := New(Config{StateMachine: sm, ID: "one", Addr: "192.0.2.1:8300", Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				s, err := r.openStores()
				if err != nil {
					if !errors.Is(err, ErrDamaged) {
						t.Errorf("got %v, want it to be damage", err)
					}
					said++
					return
				}
				defer s.close()
				want := uint64(entries + 2) // configuration and no-op
				if n < 2 {
					want--
				}
				if last, err := s.log.LastIndex(); err != nil || last < want {
					t.Errorf("last index: got %d, %v; want %d", last, err, want)
				}
			})
		}
	}
	if said == 0 {
		t.Error("no page mattered: the test does not reach the data")
	}
}

func TestDamagedLog_GoesOnFromTheSnapshot(t *testing.T) {
	dir := filled(t, 30, 20)
	mustChange(t, filepath.Join(dir, fileLog), func(b []byte) []byte { return b[:5000] })
	p := run(t, dir, beginAnew)
	p.awaitLeader()
	p.mustApply("new")
	if got := len(p.sm.entries); got != 21 || !p.sm.has("new") {
		t.Errorf("got %d entries, want the snapshot's 20 and the new one", got)
	}
	snaps, err := os.ReadDir(filepath.Join(dir, dirSnapshots))
	if err != nil || len(snaps) != 1 {
		t.Errorf("snapshots: got %v, %v", snaps, err)
	}
	if l, _ := p.Leadership(); l.Term < 3 {
		t.Errorf("term: got %d, want it above the snapshot's, 2", l.Term)
	}
}

func TestDamagedSnapshot_GoesOnFromTheLogWhereItIsWhole(t *testing.T) {
	dir := filled(t, 30, 20)
	damageSnapshots(t, dir)
	if err := run(t, copyDir(t, dir), nil).ended(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), dirSnapshots) {
		t.Errorf("refusing: got %v, want it to name the snapshots", err)
	}
	p := run(t, dir, beginAnew)
	p.awaitLeader()
	p.mustApply("new")
	if got := len(p.sm.entries); got != 31 {
		t.Errorf("got %d entries, want all 31", got)
	}
	if aside := p.SetAside(); len(aside) != 1 || !strings.Contains(aside[0], dirSnapshots) {
		t.Errorf("set aside: got %v", aside)
	}
}

func TestDamagedSnapshot_SetsAsideALogThatBeginsBehindIt(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir, func(c *Config, _ *Replica) { c.TrailingLogs = 2 })
	p.awaitLeader()
	p.mustApply("a", "b", "c", "d")
	if err := p.raft.Load().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	_ = p.end()
	damageSnapshots(t, dir)
	p = run(t, dir, beginAnew)
	p.awaitLeader()
	p.mustApply("new")
	if len(p.SetAside()) != 2 || len(p.sm.entries) != 1 {
		t.Errorf("set aside %v, entries %v; want both files, and the new entry only", p.SetAside(), p.sm.entries)
	}
}

func damageSnapshots(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, dirSnapshots, "*", "state.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no snapshots: %v", err)
	}
	for _, f := range files {
		mustChange(t, f, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	}
}

// A process that dies while it opens the log may have been killed, by whoever is short of
// memory: that is no damage, however often. It waits before it tries again. A file whose
// structure would end any process that opens it is set aside.
func TestOpening_ThatEndedTheProcess(t *testing.T) {
	whole := filled(t, 300, 0)
	deaths := func(dir string, n string, ago time.Duration) {
		mark := filepath.Join(dir, fileLock)
		if err := errors.Join(os.WriteFile(mark, []byte(n+"\n"), 0o600), os.Chtimes(mark, time.Time{}, time.Now().Add(-ago))); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		deaths   string
		ago      time.Duration
		freelist bool // claims more pages than there could be
		want     error
		aside    int
	}{
		"once":                        {"1", 0, false, nil, 0},
		"twice, just now":             {"2", 0, false, errDeadly, 0},
		"twice, a while ago":          {"2", deadlyPause, false, nil, 0},
		"nine times, a while ago":     {"9", deadlyPause, false, errDeadly, 0},
		"nine times, long ago":        {"9", deadlyPauseMost, false, nil, 0},
		"in a time to come":           {"2", -time.Hour, false, nil, 0},
		"twice, and it was no wonder": {"2", 0, true, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, whole)
			if tt.freelist {
				mustChange(t, filepath.Join(dir, fileLog), func(b []byte) []byte {
					m, err := newestMeta(bytes.NewReader(b))
					if err != nil {
						t.Fatal(err)
					}
					at := binary.NativeEndian.Uint64(m[32:]) * uint64(binary.NativeEndian.Uint32(m[8:]))
					binary.NativeEndian.PutUint16(b[at+10:], manyFree)
					binary.NativeEndian.PutUint64(b[at+pageHeader:], 1<<38)
					return b
				})
			}
			deaths(dir, tt.deaths, tt.ago)
			p := run(t, dir, beginAnew)
			if tt.want != nil {
				if err := p.ended(); !errors.Is(err, tt.want) || errors.Is(err, ErrDamaged) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				return
			}
			p.awaitLeader()
			if len(p.SetAside()) != tt.aside {
				t.Errorf("set aside: got %v, want %d", p.SetAside(), tt.aside)
			}
		})
	}
}

// Whatever is in the file, looking at it ends, with little memory.
func FuzzCheckStructure(f *testing.F) {
	dir := f.TempDir()
	s, err := openLog(filepath.Join(dir, fileLog))
	if err != nil {
		f.Fatal(err)
	}
	for i := uint64(1); i <= 40; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Data: bytes.Repeat([]byte("x"), 300)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(s.DeleteRange(1, 20), s.close()); err != nil {
		f.Fatal(err)
	}
	if err := checkStructure(filepath.Join(dir, fileLog)); err != nil {
		f.Fatalf("a sound file: %v", err)
	}
	file, err := os.ReadFile(filepath.Join(dir, fileLog))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(8192), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, at uint32, b []byte) {
		changed := bytes.Clone(file)
		copy(changed[int(at)%len(changed):], b)
		path := filepath.Join(t.TempDir(), fileLog)
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkStructure(path); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want that it is damaged", err)
		}
	})
}

func TestStoreLogs_RefusesAGap(t *testing.T) {
	s, err := openLog(filepath.Join(t.TempDir(), fileLog))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.StoreLogs([]*raft.Log{{Index: 5}, {Index: 6}}); err != nil {
		t.Errorf("a log may begin anywhere: got %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 8}); err == nil {
		t.Error("a gap: got no error")
	}
	if err := s.DeleteRange(6, 6); err != nil {
		t.Error(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 6, Term: 2}); err != nil {
		t.Errorf("a conflict resolved: got %v", err)
	}
	for index, want := range map[uint64]error{4: raft.ErrLogNotFound, 5: nil, 6: nil, 7: raft.ErrLogNotFound} {
		if err := s.GetLog(index, new(raft.Log)); !errors.Is(err, want) {
			t.Errorf("entry %d: got %v, want %v", index, err, want)
		}
	}
}

func TestSecondProcess_IsRefused(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir, nil)
	p.awaitLeader()
	if err := run(t, dir, beginAnew).ended(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("directory: got %v, want %v", err, ErrInUse)
	}
	p.mustApply("a") // the first goes on
	_ = p.end()
	db, err := bolt.Open(filepath.Join(dir, fileLog), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := run(t, dir, beginAnew).ended(); !errors.Is(err, ErrInUse) {
		t.Errorf("file: got %v, want %v", err, ErrInUse)
	}
}

// faulty stores fail when told to.
type faulty struct {
	raft.LogStore
	raft.StableStore
	fail func(call string) error
}

func (f *faulty) IsMonotonic() bool { return true }
func (f *faulty) StoreLogs(l []*raft.Log) error {
	if err := f.fail("StoreLogs"); err != nil {
		return err
	}
	return f.LogStore.StoreLogs(l)
}
func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	if err := f.fail("GetLog"); err != nil {
		return err
	}
	return f.LogStore.GetLog(i, l)
}
func (f *faulty) LastIndex() (uint64, error) {
	if err := f.fail("LastIndex"); err != nil {
		return 0, err
	}
	return f.LogStore.LastIndex()
}
func (f *faulty) SetUint64(k []byte, v uint64) error {
	if err := f.fail("SetUint64 " + string(k)); err != nil {
		return err
	}
	return f.StableStore.SetUint64(k, v)
}
func (f *faulty) Set(k, v []byte) error {
	if err := f.fail("Set " + string(k)); err != nil {
		return err
	}
	return f.StableStore.Set(k, v)
}

var errDisk = errors.New("input/output error")

// withFaults lets fail decide each call of the stores.
func withFaults(fail func(call string) error) func(*Config, *Replica) {
	return func(_ *Config, r *Replica) {
		if r == nil {
			return
		}
		r.open = func() (*stores, error) {
			s, err := r.openStores()
			if err == nil {
				f := &faulty{LogStore: s.log, StableStore: s.stable, fail: fail}
				s.log, s.stable = f, f
			}
			return s, err
		}
	}
}

func TestDiskFault_AtTheStartIsAnErrorNotAPanic(t *testing.T) {
	for _, call := range []string{"SetUint64 CurrentTerm", "StoreLogs", "LastIndex", "GetLog", "Set LastVoteCand", "SetUint64 LastVoteTerm"} {
		t.Run(call, func(t *testing.T) {
			dir := t.TempDir()
			if call == "GetLog" { // there must be something to get
				dir = filled(t, 3, 0)
			}
			p := run(t, dir, withFaults(func(c string) error {
				if c == call {
					return errDisk
				}
				return nil
			}))
			if err := p.ended(); !errors.Is(err, errDisk) {
				t.Errorf("got %v, want %v", err, errDisk)
			}
		})
	}
}

func TestDiskFault_WhileLeadingLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 5 {
		writes := 0
		p := run(t, dir, withFaults(func(call string) error {
			if call == "StoreLogs" {
				if writes++; writes > 4+round {
					return errDisk
				}
			}
			return nil
		}))
		p.awaitLeader()
		for i := 0; ; i++ {
			e := fmt.Sprint("round ", round, " entry ", i)
			_, _, err := p.Apply(t.Context(), []byte(e))
			if err == nil {
				acknowledged = append(acknowledged, e)
				continue
			}
			if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNoLeader) {
				t.Errorf("apply: got %v", err)
			}
			break
		}
		if err := p.ended(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "write the raft log") {
			t.Errorf("run: got %v, want it to say what failed", err)
		}
	}
	p := run(t, dir, nil)
	p.awaitLeader()
	if err := p.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range acknowledged {
		if !p.sm.has(e) {
			t.Errorf("%q was acknowledged and is lost", e)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
}

func TestSnapshotThatFails_LeavesTheReplicaRunning(t *testing.T) {
	p := run(t, t.TempDir(), nil)
	p.awaitLeader()
	p.mustApply("a")
	p.fsm.sm = failingSnapshot{p.sm}
	if err := p.raft.Load().Snapshot().Error(); err == nil {
		t.Error("got no error")
	}
	p.mustApply("b")
}

type failingSnapshot struct{ StateMachine }

func (failingSnapshot) Snapshot() io.WriterTo { return failingWriter{} }

type failingWriter struct{}

func (failingWriter) WriteTo(io.Writer) (int64, error) { panic("cannot encode") }
