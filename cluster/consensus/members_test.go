package consensus

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meibo/cluster/clustertest/logtest"
)

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func TestTransfer_MakesTheNamedServerLead(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		to := g.others(l)[1]
		ctx, cancel := within(2 * time.Second)
		defer cancel()
		if err := to.TransferLeadership(ctx, l.id); !errors.Is(err, ErrNoLeader) {
			t.Errorf("by a follower: got %v, want %v", err, ErrNoLeader)
		}
		if err := l.TransferLeadership(ctx, "nobody"); err == nil {
			t.Error("to nobody: got no error")
		}
		if err := l.TransferLeadership(ctx, to.id); err != nil {
			t.Error(err)
		}
		if got := g.leader(); got != to {
			t.Errorf("%s leads, want %s", got.name, to.name)
		}
	})
}

func TestTransfer_OneServerAloneSaysWhyItLeadsOn(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, g *group) {
		ctx, cancel := within(2 * time.Second)
		defer cancel()
		if err := g.leader().TransferLeadership(ctx, ""); err == nil || !strings.Contains(err.Error(), "no other server has a vote") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRun_HandsLeadershipOverBeforeItEnds(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		for range 5 {
			g.write("k", "v")
			l := g.leader()
			start := time.Now()
			if err := l.end(); err != nil {
				t.Error(err)
			}
			next := g.leader()
			if took := time.Since(start); took > DefaultElection {
				t.Errorf("%s led %v after %s was told to stop, want less than an election takes", next.name, took, l.name)
			}
			l.start()
			g.same("k", "v")
		}
	})
}

func TestRun_EndsSoonWhereNobodyCanTakeOver(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		g.net.apart(l.name, true)
		start := time.Now()
		if err := l.end(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > transportTimeout+drainTime {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestAddServer_GivesAVoteWhenTheLogIsThere(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, g *group) {
		for range 500 {
			g.write("k", "v")
		}
		l := g.leader()
		m := g.add("s2", "id2")
		ctx, cancel := within(time.Second)
		defer cancel()
		if err := l.AddServer(ctx, Server{ID: "id2", Addr: "s2", Voter: true}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("add one that isn't there: got %v", err)
		}
		if s, ok := find(l.Servers(), "id2"); !ok || s.Voter {
			t.Errorf("one that isn't there: got %v, want a non-voter", l.Servers())
		}
		g.write("k", "alone") // it holds up nobody
		m.start()
		g.until("a non-voter has the log", func() bool { return m.sm.get("k") == "alone" })
		ctx, cancel = within(time.Second)
		defer cancel()
		for _, s := range []Server{{ID: "id2", Addr: "s2", Voter: true}, {ID: "id2", Addr: "s2"}, {ID: "id2", Addr: "s2", Voter: true}} {
			if err := l.AddServer(ctx, s); err != nil {
				t.Errorf("%v: %v", s, err)
			}
			if got, _ := find(l.Servers(), "id2"); got != s {
				t.Errorf("got %v, want %v", got, s)
			}
		}
		if err := m.AddServer(ctx, Server{ID: "id3", Addr: "s3"}); !errors.Is(err, ErrNoLeader) {
			t.Errorf("by a follower: got %v, want %v", err, ErrNoLeader)
		}
	})
}

func TestAddServer_TakesAChangedAddress(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		m := g.others(l)[0]
		m.crash()
		delete(g.servers, m.name)
		m.name = "s9"
		g.servers["s9"] = m
		m.change = nil
		m.start()
		// Raft 1.8.0 names the peer of a pipeline that breaks without holding the
		// lock of its address: the leader has to have noticed.
		time.Sleep(time.Second)
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		if err := l.AddServer(ctx, Server{ID: m.id, Addr: "s9", Voter: true}); err != nil {
			t.Fatal(err)
		}
		g.write("k", "v")
		g.same("k", "v")
	})
}

// All addresses have changed while all were down: what Config.Address says
// brings them together, and the leader writes it down.
func TestAddress_FindsServersThatMoved(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		g.write("k", "v")
		now := map[string]string{"id1": "n1", "id2": "n2", "id3": "n3"}
		for _, m := range g.others() {
			m.crash()
		}
		for _, m := range g.others() {
			delete(g.servers, m.name)
			m.name = now[m.id]
			g.servers[m.name] = m
			m.change = func(c *Config) { c.Address = func(id string) (string, bool) { a, ok := now[id]; return a, ok } }
			m.start()
		}
		g.write("k", "w")
		g.same("k", "w")
	})
}

// That the only voter stays is known at once, and no write of unknown outcome.
func TestRemoveServer_TheLastVoterStays(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, g *group) {
		ctx, cancel := within(2 * time.Second)
		defer cancel()
		l := g.leader()
		for what, err := range map[string]error{
			"removed":        l.RemoveServer(ctx, l.id),
			"without a vote": l.AddServer(ctx, Server{ID: l.id, Addr: l.name}),
		} {
			if !errors.Is(err, ErrLastVoter) || errors.Is(err, ErrUnknownOutcome) || !strings.Contains(err.Error(), l.id+" is the only one") {
				t.Errorf("%s: got %v", what, err)
			}
		}
		g.write("k", "v")
	})
}

func TestRemovedServer_LearnsOfIt(t *testing.T) {
	t.Run("while it runs", func(t *testing.T) {
		inBubble(t, 3, func(t *testing.T, g *group) {
			l := g.leader()
			m := g.others(l)[0]
			ctx, cancel := within(5 * time.Second)
			defer cancel()
			if err := l.RemoveServer(ctx, m.id); err != nil {
				t.Fatal(err)
			}
			m.ends(ErrRemoved)
			if err := l.RemoveServer(ctx, m.id); err != nil {
				t.Errorf("again: got %v", err)
			}
			g.write("k", "v")
		})
	})
	t.Run("when it comes back", func(t *testing.T) {
		inBubble(t, 3, func(t *testing.T, g *group) {
			l := g.leader()
			m := g.others(l)[0]
			m.crash()
			ctx, cancel := within(5 * time.Second)
			defer cancel()
			if err := l.RemoveServer(ctx, m.id); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				g.write("k", "v")
			}
			term := l.raft.Load().CurrentTerm()
			m.start()
			m.ends(ErrRemoved)
			if got := l.raft.Load().CurrentTerm(); got != term {
				t.Errorf("it disturbed the others: term %d became %d", term, got)
			}
		})
	})
	t.Run("and knows: it waits to be added", func(t *testing.T) {
		inBubble(t, 3, func(t *testing.T, g *group) {
			said := new(logtest.Text)
			l := g.leader()
			m := g.others(l)[0]
			ctx, cancel := within(30 * time.Second)
			defer cancel()
			if err := l.RemoveServer(ctx, m.id); err != nil {
				t.Fatal(err)
			}
			m.ends(ErrRemoved)
			m.change = func(c *Config) { c.Removed, c.Logger = true, slog.New(slog.NewTextHandler(said, nil)) }
			m.start()
			time.Sleep(10 * time.Second) // synctest's: longer than it waits before it asks
			if text := said.String(); strings.Contains(text, "WARN") || strings.Contains(text, "ERROR") {
				t.Errorf("the log says\n%s", text)
			}
			if err := l.AddServer(ctx, Server{ID: m.id, Addr: m.name, Voter: true}); err != nil {
				t.Fatal(err)
			}
			g.write("k", "v")
			g.same("k", "v")
			if err := l.RemoveServer(ctx, m.id); err != nil { // it isn't told of the former removal, but of this one
				t.Fatal(err)
			}
			m.ends(ErrRemoved)
		})
	})
	t.Run("the leader itself", func(t *testing.T) {
		inBubble(t, 3, func(t *testing.T, g *group) {
			l := g.leader()
			ctx, cancel := within(5 * time.Second)
			defer cancel()
			if err := l.RemoveServer(ctx, l.id); err != nil {
				t.Fatal(err)
			}
			l.ends(ErrRemoved)
			g.write("k", "v")
			if n := len(g.leader().Servers()); n != 2 {
				t.Errorf("%d servers are left, want 2", n)
			}
		})
	})
}

// Whatever comes of the log's past, a server that goes through it isn't taken
// for a removed one.
func TestNewServer_IsNotTakenForARemovedOne(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		ctx, cancel := within(30 * time.Second)
		defer cancel()
		for i := range 200 {
			g.write("k", strings.Repeat("x", i))
		}
		for range 3 {
			l := g.leader()
			m := g.others(l)[0]
			if err := l.RemoveServer(ctx, m.id); err != nil {
				t.Fatal(err)
			}
			m.ends(ErrRemoved)
			m.wipe()
			m.change = nil
			m.start()
			if err := l.AddServer(ctx, Server{ID: m.id, Addr: m.name, Voter: true}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		g.write("k", "v")
		g.same("k", "v")
	})
}

func TestBootstrap_IsForTheEmptyOnly(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, g *group) {
		m := g.add("s2", "id2")
		m.start()
		g.until("it runs", m.Empty)
		if err := m.Bootstrap([]Server{{ID: "id2", Addr: "s2", Voter: true}}); err != nil {
			t.Fatal(err)
		}
		g.until("it leads", m.IsLeader)
		if err := m.Bootstrap(nil); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("again: got %v, want %v", err, ErrNotEmpty)
		}
		if m.Empty() || m.ClusterID() == "" || m.ClusterID() == g.servers["s1"].ClusterID() {
			t.Errorf("got cluster %q beside %q", m.ClusterID(), g.servers["s1"].ClusterID())
		}
	})
}

func TestOtherBootstrap_IsRefusedAndBothSayWhy(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		g.write("k", "new")
		l := g.leader()
		old := g.add("s9", "id9")
		old.change = func(c *Config) { c.Bootstrap = true }
		old.start()
		g.until("it leads", old.IsLeader)
		if err := old.put("k", "old"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		err := l.AddServer(ctx, Server{ID: "id9", Addr: "s9", Voter: true})
		if err == nil || !strings.Contains(err.Error(), "two bootstraps") {
			t.Errorf("add: got %v, want it to say why", err)
		}
		if old.sm.get("k") != "old" || l.sm.get("k") != "new" || !old.IsLeader() {
			t.Error("one took the other's state")
		}
		said := make(map[string]int) // by who says it and of whom
		for line := range strings.Lines(g.said.String()) {
			if _, who, ok := strings.Cut(line, "raft does not speak to a server"); ok && strings.Contains(line, "two bootstraps") {
				said[strings.Join(strings.Fields(who)[1:3], " ")]++
			}
		}
		for _, who := range []string{"node=" + old.name + " peer=" + l.id, "node=" + l.name + " peer=id9"} {
			if said[who] == 0 {
				t.Errorf("%s is not said:\n%s", who, g.said)
			}
		}
		for who, n := range said {
			if n > 1 {
				t.Errorf("%s said %d times in a minute, want once:\n%s", who, n, g.said)
			}
		}
	})
}

func TestFollowerOutOfReach_IsSaidOnce(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		m := g.others(l)[0]
		before := g.said.String()
		m.crash()
		time.Sleep(30 * time.Second)
		var about []string
		for line := range strings.Lines(strings.TrimPrefix(g.said.String(), before)) {
			if strings.Contains(line, "node="+l.name) {
				about = append(about, line)
			}
		}
		if len(about) != 1 || !strings.Contains(about[0], "out of reach") || !strings.Contains(about[0], m.id) {
			t.Errorf("the leader said\n%s", strings.Join(about, ""))
		}
	})
}

func TestApply_OfADeposedLeaderDoesNotSayThatItDidNotHappen(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		g.net.apart(l.name, true)
		if err := l.put("k", "lost"); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("on its way: got %v, want %v", err, ErrUnknownOutcome)
		}
		g.until("it steps down", func() bool { return !l.IsLeader() })
		if err := l.put("k", "late"); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("afterwards: got %v, want %v", err, ErrNoLeader)
		}
		ctx, cancel := within(time.Second)
		defer cancel()
		if err := l.Verify(ctx); !errors.Is(err, ErrNoLeader) {
			t.Errorf("verify: got %v, want %v", err, ErrNoLeader)
		}
	})
}

func TestSetTimeouts_ChangesHowSoonAnElectionComes(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		for _, m := range g.others() {
			if err := m.SetTimeouts(2*time.Second, 2*time.Second); err != nil {
				t.Error(err)
			}
			if err := m.SetTimeouts(time.Millisecond, time.Millisecond); err == nil {
				t.Error("shorter than the lease: got no error")
			}
		}
		l := g.leader()
		start := time.Now()
		l.crash()
		g.leader()
		if took := time.Since(start); took < 2*time.Second {
			t.Errorf("another led after %v, want the longer timeouts to hold", took)
		}
	})
}

func TestFullDisk_HandsOverAndRefusesWrites(t *testing.T) {
	inBubbleWith(t, 3, func(m *member) { m.dir = m.g.t.TempDir() }, func(t *testing.T, g *group) {
		l := g.leader()
		free := new(atomic.Uint64)
		free.Store(1 << 20)
		l.setSpace(free)
		g.until("another leads", func() bool { return g.leader() != l })
		for _, m := range g.others(l) {
			m.setSpace(free)
		}
		g.until("writes are refused", func() bool { return errors.Is(g.leader().put("k", "v"), ErrDiskFull) })
		free.Store(1 << 30)
		g.until("writes are taken", func() bool { return g.leader().put("k", "v") == nil })
	})
}

func TestLedSince_CountsOnlyWhatWasAskedAfter(t *testing.T) {
	var r reach
	voters := []Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "d"}}
	now := time.Now()
	r.follows("b", 3, now)
	r.follows("d", 3, now.Add(time.Hour))
	for _, tt := range []struct {
		name  string
		term  uint64
		since time.Time
		want  bool
	}{
		{"asked before", 3, now.Add(1), false},
		{"asked after", 3, now, true},
		{"in another term", 4, now, false},
	} {
		if got := r.ledSince(voters, "a", tt.term, tt.since); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if !r.ledSince(voters[:1], "a", 9, now) {
		t.Error("a cluster of one: got false")
	}
}

// setSpace replaces what the disk says of its free space.
func (m *member) setSpace(free *atomic.Uint64) { m.free.Store(free) }

// When a leader dies no vote waits for a handshake: the servers have connections ready,
// and one that broke is made anew.
func TestElection_NeedsNoNewConnection(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		g.write("k", "v")
		time.Sleep(2 * spareAgain)
		for range 2 {
			led := g.leader()
			others := g.others(led)
			dials := func() int {
				g.net.mu.Lock()
				defer g.net.mu.Unlock()
				return g.net.dials
			}
			before := dials()
			g.net.apart(led.name, true)
			g.until("another leads", func() bool { return others[0].IsLeader() || others[1].IsLeader() })
			if made := dials() - before; made != 0 {
				t.Errorf("%d connections were made for an election", made)
			}
			g.net.apart(led.name, false)
			_ = led.end()
			led.start()
			time.Sleep(2 * spareAgain)
		}
	})
}

// A follower that comes back to a cluster where nothing is written knows that it has
// applied all there is, though the last entry is one of Raft's own.
func TestFollower_BackInAQuietClusterHasAppliedAll(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		g.write("k", "v")
		led := g.leader()
		m := g.others(led)[0]
		_ = m.end()
		_ = led.end() // another leads, and says so in the log
		m.start()
		next := g.leader()
		g.until("all is committed there", func() bool { return m.Committed() > 0 && m.Committed() == next.Committed() })
		g.until("all is applied there", func() bool { return m.HasApplied(m.Committed()) })
		if m.sm.get("k") != "v" {
			t.Error("it has not applied what was written")
		}
		if m.HasApplied(m.Committed() + 1) {
			t.Error("it has applied an entry that there isn't")
		}
		led.start()
	})
}
