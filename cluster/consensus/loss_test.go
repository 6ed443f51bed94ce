package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func onDisk(m *member) { m.dir = m.g.t.TempDir() }

// The worst that can be: a write is on two of three, one of these is wiped
// and the other is away. The third never saw it, and must not get the vote
// that the wiped one gave.
func TestWipedServer_DoesNotVoteAwayWhatWasAcknowledged(t *testing.T) {
	for name, id := range map[string]string{"under its old ID": "id2", "under a new ID": "id2b"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, g *group) {
				s1, s2, s3 := g.servers["s1"], g.servers["s2"], g.servers["s3"]
				g.write("k", "old")
				g.same("k", "old")
				ctx, cancel := within(time.Minute)
				defer cancel()
				if l := g.leader(); l != s1 {
					if err := l.TransferLeadership(ctx, "id1"); err != nil {
						t.Fatal(err)
					}
				}
				g.until("s1 leads", s1.IsLeader)
				s3.crash()
				g.write("k", "acknowledged")
				g.until("s2 has it", func() bool { return s2.sm.get("k") == "acknowledged" })
				s1.crash()
				_ = s2.end()
				s2.wipe()
				s2.id, s2.change = id, nil
				s2.start()
				s3.start()
				for range 200 {
					if s2.IsLeader() || s3.IsLeader() {
						t.Fatal("a server leads that lacks an acknowledged write")
					}
					time.Sleep(50 * time.Millisecond)
				}
				s1.change = nil
				s1.start()
				g.until("s1 leads again", func() bool {
					if s3.IsLeader() {
						t.Fatal("s3 leads")
					}
					return s1.IsLeader()
				})
				if id == "id2" {
					s2.ends(ErrIDRetired)
					s2.id = "id2b"
					s2.start()
				}
				if err := s1.AddServer(ctx, Server{ID: "id2b", Addr: "s2", Voter: true}); err != nil {
					t.Fatal(err)
				}
				g.same("k", "acknowledged")
				s1.crash()
				g.write("k", "more")
			})
		})
	}
}

// What such a server has in its folder by then must not keep the new ID from beginning there.
func TestWipedServer_BeginsUnderANewIDInTheSameFolder(t *testing.T) {
	inBubbleWith(t, 3, onDisk, func(t *testing.T, g *group) {
		g.write("k", "v")
		g.same("k", "v")
		l := g.leader()
		m := g.others(l)[0]
		_ = m.end()
		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
		m.start()
		m.ends(ErrIDRetired)
		m.id += "b"
		m.start()
		ctx, cancel := within(time.Minute)
		defer cancel()
		if err := l.AddServer(ctx, Server{ID: m.id, Addr: m.name, Voter: true}); err != nil {
			t.Fatal(err)
		}
		g.same("k", "v")
	})
}

func TestFileCutShort_OnOneOfThreeComesBackUnderANewID(t *testing.T) {
	inBubbleWith(t, 3, onDisk, func(t *testing.T, g *group) {
		for i := range 50 {
			g.write("k", fmt.Sprint(i))
		}
		l := g.leader()
		m := g.others(l)[0]
		m.crash()
		mustChange(t, filepath.Join(m.dir, fileLog), func(b []byte) []byte { return b[:len(b)/2] })
		m.start()
		m.ends(ErrDamaged)
		if !errors.Is(m.err, ErrIDRetired) || len(m.SetAside()) == 0 {
			t.Errorf("got %v, set aside %v", m.err, m.SetAside())
		}
		m.start() // whoever doesn't heed it
		m.ends(ErrIDRetired)
		g.write("k", "without it")
		m.id, m.change = "fresh", nil
		m.start()
		ctx, cancel := within(time.Minute)
		defer cancel()
		if err := l.AddServer(ctx, Server{ID: "fresh", Addr: m.name, Voter: true}); err != nil {
			t.Fatal(err)
		}
		if n := len(l.Servers()); n != 3 {
			t.Errorf("%d servers, want the former one removed: %v", n, l.Servers())
		}
		g.same("k", "without it")
		l.crash()
		g.write("k", "with it")
	})
}

func TestRefuse_TakesSnapshotsWithoutAVoteForDamage(t *testing.T) {
	dir := filled(t, 30, 20)
	if err := os.Remove(filepath.Join(dir, fileLog)); err != nil {
		t.Fatal(err)
	}
	if err := run(t, dir, nil).ended(); !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrIDRetired) {
		t.Errorf("got %v, want %v", err, ErrDamaged)
	}
	p := run(t, dir, func(c *Config, _ *Replica) { c.ID, c.Bootstrap = "two", false })
	for !p.Empty() {
		time.Sleep(time.Millisecond)
	}
}

func TestFilesOfAnotherServer_AreRefused(t *testing.T) {
	dir := filled(t, 3, 0)
	err := run(t, dir, func(c *Config, _ *Replica) { c.ID = "two" }).ended()
	if !errors.Is(err, ErrOtherID) || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want it to name both", err)
	}
	p := run(t, dir, nil) // nothing came of it
	p.awaitLeader()
}

func TestDiskFault_OfTheLeaderMovesLeadershipAndHeals(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		g.write("k", "v")
		l := g.leader()
		start := time.Now()
		l.breaks(func(call string) error {
			if strings.HasPrefix(call, "Store") || strings.HasPrefix(call, "Set") {
				return errDisk
			}
			return nil
		})
		_ = l.put("k", "lost")
		l.ends(errDisk)
		g.write("k", "w")
		t.Logf("a write again after %v", time.Since(start))
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a write again after %v", took)
		}
		l.breaks(nil)
		l.start()
		g.same("k", "w")
	})
}

func TestFollower_AwayForLongGetsTheSnapshot(t *testing.T) {
	few := func(m *member) {
		m.dir = m.g.t.TempDir()
		was := m.change
		m.change = func(c *Config) {
			if was != nil {
				was(c)
			}
			c.TrailingLogs, c.SnapshotEvery = 10, 20
		}
	}
	for _, what := range []string{"follower", "leader with entries of its own"} {
		t.Run(what, func(t *testing.T) {
			inBubbleWith(t, 3, few, func(t *testing.T, g *group) {
				for i := range 30 {
					g.write("k", fmt.Sprint(i))
				}
				l := g.leader()
				away := g.others(l)[0]
				if what != "follower" {
					away = l
				}
				g.net.apart(away.name, true)
				// Entries that no majority takes, and that what is committed
				// meanwhile contradicts: hashicorp/raft issue 697.
				for range 50 {
					if away.IsLeader() {
						go func() { _ = away.put("k", "contradicts") }()
					}
				}
				time.Sleep(500 * time.Millisecond)
				for i := range 200 {
					g.writeBeside(away, "k", fmt.Sprint("new", i))
				}
				for _, m := range g.others(away) {
					if err := m.raft.Load().Snapshot().Error(); err != nil {
						t.Fatal(err)
					}
				}
				first, err := g.others(away)[0].logStore().FirstIndex()
				if last, _ := away.LastIndex(); err != nil || first <= last {
					t.Fatalf("the log begins at %d, and who was away ends at %d: the test shows nothing", first, last)
				}
				g.net.apart(away.name, false)
				g.same("k", "new199")
				time.Sleep(time.Second)
				begins, err := away.logStore().FirstIndex()
				ends, err2 := away.logStore().LastIndex()
				if err := errors.Join(err, err2); err != nil {
					t.Fatal(err)
				}
				t.Logf("its log: %d to %d", begins, ends)
				_ = away.end()
				away.start() // its files are whole
				g.write("k", "end")
				g.same("k", "end")
			})
		})
	}
}

func (g *group) writeBeside(not *member, key, value string) {
	g.t.Helper()
	g.until("a write is taken", func() bool {
		for _, m := range g.others(not) {
			if m.IsLeader() && m.put(key, value) == nil {
				return true
			}
		}
		return false
	})
}

// A process that is killed after it wrote a leader's snapshot and before it
// dropped its log goes on.
func TestLogBehindTheSnapshot_IsDropped(t *testing.T) {
	dir := filled(t, 30, 20)
	s, err := openLog(filepath.Join(dir, fileLog))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.DeleteRange(12, 100), s.close()); err != nil {
		t.Fatal(err)
	}
	p := run(t, dir, nil)
	p.awaitLeader()
	p.mustApply("new")
	if len(p.sm.entries) != 21 {
		t.Errorf("got %d entries, want the snapshot's 20 and the new one", len(p.sm.entries))
	}
}

func TestCompaction_ShrinksAFileThatIsMostlyFree(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir, func(c *Config, _ *Replica) { c.TrailingLogs = 2 })
	p.awaitLeader()
	for i := range 40 {
		p.mustApply(fmt.Sprint(i, strings.Repeat("x", 1<<19)))
	}
	if err := p.raft.Load().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	p.mustApply("last")
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileLog)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	p = run(t, dir, nil)
	p.awaitLeader()
	p.mustApply("after")
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Size() < compactAbove || after.Size() > before.Size()/2 {
		t.Errorf("%d bytes became %d", before.Size(), after.Size())
	}
	if !p.sm.has("last") || !p.sm.has("after") || len(p.sm.entries) != 42 {
		t.Errorf("%d entries are left", len(p.sm.entries))
	}
	if _, err := os.Stat(path + ".compact"); !os.IsNotExist(err) {
		t.Errorf("the copy: %v", err)
	}
}

func TestRecover_GoesOnWithAnotherListAndAnotherCluster(t *testing.T) {
	inBubbleWith(t, 3, onDisk, func(t *testing.T, g *group) {
		g.write("k", "kept")
		g.same("k", "kept")
		s1, s2, s3 := g.servers["s1"], g.servers["s2"], g.servers["s3"]
		former := s1.ClusterID()
		for _, m := range g.others() {
			m.crash()
		}
		recover := []Server{{ID: "id1", Addr: "s1", Voter: true}, {ID: "id2", Addr: "s2", Voter: true}}
		for _, m := range []*member{s1, s2} {
			m.change = func(c *Config) { c.Recover = recover }
			m.start()
		}
		s3.change = nil
		s3.start() // nobody told it
		g.write("k", "new")
		if !s1.Recovered() || s1.ClusterID() != s2.ClusterID() || s1.ClusterID() == former || s3.ClusterID() != former {
			t.Errorf("clusters: got %q, %q, %q; before %q", s1.ClusterID(), s2.ClusterID(), s3.ClusterID(), former)
		}
		time.Sleep(5 * time.Second)
		if s3.sm.get("k") == "new" || s3.IsLeader() {
			t.Error("who did not recover takes part")
		}
		if !strings.Contains(g.said.String(), "two bootstraps") {
			t.Errorf("nobody says so:\n%s", g.said)
		}
		recovered := s1.ClusterID()
		for _, m := range []*member{s1, s2} {
			_ = m.end()
			m.change = nil
			m.start()
		}
		g.write("k", "newer")
		if s1.Recovered() || s1.ClusterID() != recovered {
			t.Errorf("after a restart: recovered %v, cluster %q, want %q", s1.Recovered(), s1.ClusterID(), recovered)
		}
	})
}

func TestRecover_DoneOnceIsNotDoneAgain(t *testing.T) {
	dir := filled(t, 5, 0)
	list := []Server{{ID: "one", Addr: "192.0.2.1:8300"}, {ID: "two", Addr: "192.0.2.2:8300", Voter: true}}
	var ids []string
	for range 2 { // a non-voter writes nothing
		p := run(t, dir, func(c *Config, _ *Replica) { c.Recover = list })
		for p.Servers() == nil {
			time.Sleep(time.Millisecond)
		}
		if !p.Recovered() || len(p.sm.entries) != 5 {
			t.Errorf("recovered %v, %d entries", p.Recovered(), len(p.sm.entries))
		}
		ids = append(ids, p.ClusterID())
		_ = p.end()
	}
	if ids[0] != ids[1] {
		t.Errorf("clusters: got %q", ids)
	}
}

func TestRecover_RefusesWhatCannotBeMeant(t *testing.T) {
	for name, tt := range map[string]struct {
		dir  string
		list []Server
	}{
		"no files":         {t.TempDir(), []Server{{ID: "one", Addr: "a", Voter: true}}},
		"without itself":   {filled(t, 1, 0), []Server{{ID: "two", Addr: "a", Voter: true}}},
		"without a voter":  {filled(t, 1, 0), []Server{{ID: "one", Addr: "a"}}},
		"without address":  {filled(t, 1, 0), []Server{{ID: "one", Voter: true}}},
		"one server twice": {filled(t, 1, 0), []Server{{ID: "one", Addr: "a", Voter: true}, {ID: "one", Addr: "b", Voter: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t, tt.dir, func(c *Config, _ *Replica) { c.Recover = tt.list }).ended(); err == nil || !strings.Contains(err.Error(), "recover") {
				t.Errorf("got %v, want it to say what is wrong", err)
			}
		})
	}
}

func FuzzPreface(f *testing.F) {
	for _, v := range []any{hello{"c", "a", "b", false}, reply{Cluster: "c", From: "b", Last: 9, Member: true}, refused{retiredID, "why"}} {
		var b bytes.Buffer
		if err := writeFrame(&b, v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte("mbr1\xff\xff{}"))
	f.Add([]byte("POST / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(hello), new(reply), new(refused)} {
			r := bytes.NewReader(b)
			if readFrame(r, v) == nil && len(b)-r.Len() > len(prefaceMagic)+2+maxPreface {
				t.Errorf("read %d bytes", len(b)-r.Len())
			}
		}
	})
}
