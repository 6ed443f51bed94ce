package gossip

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/membership"
)

// silence loses everything to and from some hosts.
func silence(which ...int) func(from, to netip.AddrPort) bool {
	return func(from, to netip.AddrPort) bool {
		return slices.ContainsFunc(which, func(i int) bool { return from == address(i) || to == address(i) })
	}
}

// history is what a host said of a member, one status after the other.
type history struct {
	mu   sync.Mutex // guards following
	seen []membership.Status
}

func (h *history) list() []membership.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.seen)
}

func (h *history) add(s membership.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) == 0 || h.seen[len(h.seen)-1] != s {
		h.seen = append(h.seen, s)
	}
}

// watch keeps the history of a member until the test ends.
func (h *host) watch(name string) *history {
	var kept history
	kept.add(h.sees(name))
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			changed := h.Members().Changed()
			kept.add(h.sees(name))
			select {
			case <-changed:
			case <-stop:
				return
			}
		}
	}()
	h.t.Cleanup(func() { close(stop); <-done })
	return &kept
}

func TestRule20_ADeadHostIsOutWithin5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 10)
		time.Sleep(30 * time.Second)
		n.Cut(silence(5))
		others := slices.Concat(hosts[:4], hosts[5:])
		took := within(t, 5*time.Second, "h5 is out everywhere", func() bool { return all(others, "h5", membership.Failed) })
		t.Logf("out everywhere after %v", took)
		m := hosts[0].member("h5")
		if m.Told == membership.Alive || hosts[0].Members().Life(id(5)) != membership.Failed || m.Flaps != 1 {
			t.Errorf("got %+v", m)
		}
		for _, h := range others {
			if h.guarded() {
				t.Errorf("%s suspects itself for one death", h.self.Name)
			}
		}
		n.Cut(nil)
		took = within(t, 40*time.Second, "h5 is back everywhere", func() bool { return whole(hosts...) })
		t.Logf("whole again after %v", took)
	})
}

func TestRule20_ARestartWithin2SecondsIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(20 * time.Second)
		var seen []*history
		for _, h := range hosts[:4] {
			seen = append(seen, h.watch("h5"))
		}
		for range 20 {
			back := time.Now().Add(2 * time.Second)
			hosts[4].stop()
			time.Sleep(time.Until(back))
			hosts[4] = n.start(t, 5, nil)
			time.Sleep(20 * time.Second)
		}
		for i, s := range seen {
			if len(s.list()) > 1 {
				t.Errorf("h%d saw %v", i+1, s.list())
			}
		}
		if !whole(hosts...) {
			t.Error("not whole")
		}
	})
}

func TestRule20_AHostThatHearsAndIsNotHeardShakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 7)
		time.Sleep(20 * time.Second)
		var seen []*history
		for i, h := range hosts[:6] {
			for j := range 6 {
				if i != j {
					seen = append(seen, h.watch(hosts[j].self.Name))
				}
			}
		}
		n.Cut(func(from, _ netip.AddrPort) bool { return from == address(7) })
		within(t, 8*time.Second, "h7 is out", func() bool { return all(hosts[:6], "h7", membership.Failed) })
		time.Sleep(60 * time.Second)
		if !hosts[6].guarded() {
			t.Error("h7 doesn't suspect itself")
		}
		n.Cut(nil)
		within(t, 60*time.Second, "whole again", func() bool { return whole(hosts...) })
		for _, s := range seen {
			if slices.Contains(s.list(), membership.Failed) {
				t.Errorf("a healthy host was out: %v", s.list())
			}
		}
	})
}

func TestRule20_AFlappingHostIsOutOnceAndBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(20 * time.Second)
		seen := hosts[0].watch("h5")
		for range 10 {
			n.Cut(silence(5))
			time.Sleep(8 * time.Second)
			n.Cut(nil)
			time.Sleep(4 * time.Second)
		}
		if out := hosts[0].sees("h5"); out != membership.Failed {
			t.Errorf("got %v, want failed", out)
		}
		took := within(t, 6*time.Minute, "back", func() bool { return whole(hosts...) })
		t.Logf("back after %v: %v", took, seen.list())
		outs := 0
		for _, s := range seen.list() {
			if s == membership.Failed {
				outs++
			}
		}
		if outs != 1 || len(seen.list()) > 4 {
			t.Errorf("got %v", seen.list())
		}
	})
}

func TestRule21_ACutOffHostTakesOutNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 7)
		time.Sleep(70 * time.Second)
		n.Cut(silence(7))
		within(t, 20*time.Second, "h7 suspects itself", hosts[6].guarded)
		within(t, 20*time.Second, "the others drop h7", func() bool { return all(hosts[:6], "h7", membership.Failed) })
		time.Sleep(2 * time.Minute)
		members := hosts[6].Members().Members()
		for _, m := range members {
			if m.Status == membership.Failed {
				t.Errorf("took out %s", m.Name)
			}
		}
		n.Cut(nil)
		within(t, 60*time.Second, "whole again", func() bool { return whole(hosts...) })
		if hosts[6].guarded() {
			t.Error("suspects itself still")
		}
	})
}

func TestSplit_HealsAfterAnyLength(t *testing.T) {
	for _, length := range []time.Duration{90 * time.Second, 20 * time.Minute} {
		t.Run(length.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				hosts := n.cluster(t, 7)
				time.Sleep(70 * time.Second)
				left := func(a netip.AddrPort) bool { return a.Addr().Less(address(4).Addr()) }
				n.Cut(func(from, to netip.AddrPort) bool { return left(from) != left(to) })
				time.Sleep(length)
				n.Cut(nil)
				took := within(t, 30*time.Second, "whole again", func() bool { return whole(hosts...) })
				t.Logf("whole again %v after %v", took, length)
			})
		})
	}
}

func TestPair_CutOneWayShowsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(20 * time.Second)
		n.Cut(func(from, to netip.AddrPort) bool { return from == address(1) && to == address(2) })
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			for _, h := range hosts {
				if !all(hosts, h.self.Name, membership.Alive) {
					t.Fatalf("%s isn't alive everywhere", h.self.Name)
				}
			}
		}
	})
}

func TestLeave_ShowsAsLeftEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(10 * time.Second)
		seen := hosts[0].watch("h5")
		if err := hosts[4].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "h5 left everywhere", func() bool { return all(hosts[:4], "h5", membership.Left) })
		hosts[4].stop()
		time.Sleep(time.Minute)
		if !slices.Equal(seen.list(), []membership.Status{membership.Alive, membership.Left}) {
			t.Errorf("got %v", seen.list())
		}
		late := n.start(t, 6, nil)
		within(t, 10*time.Second, "a newcomer hears of it", func() bool { return late.sees("h5") == membership.Left })
		hosts[4] = n.start(t, 5, nil)
		within(t, 10*time.Second, "h5 is back", func() bool { return whole(append(hosts, late)...) })
	})
}

func TestForceLeave_MakesTheDeadLeftAndLeavesTheLivingAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(10 * time.Second)
		if err := hosts[0].ForceLeave("h4", false); err != nil {
			t.Fatal(err)
		}
		for _, prune := range []bool{false, true} {
			if err := hosts[0].ForceLeave("h1", prune); err != nil {
				t.Fatalf("of the host that is asked: %v", err)
			}
		}
		hosts[4].stop()
		within(t, 6*time.Second, "h5 is out", func() bool { return all(hosts[:4], "h5", membership.Failed) })
		if err := hosts[0].ForceLeave("h5", false); err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Second, "h5 left", func() bool { return all(hosts[:4], "h5", membership.Left) })
		if err := hosts[1].ForceLeave("h5", true); err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Second, "h5 is forgotten, and counts as left", func() bool {
			return !slices.ContainsFunc(hosts[:4], func(h *host) bool {
				known := h.Members().ByName("h5") != nil
				return known || h.Members().Life(id(5)) != membership.Left
			})
		})
		if !whole(hosts[:4]...) {
			t.Error("h1 or h4 was touched")
		}
		if err := hosts[0].ForceLeave("nobody", false); err == nil {
			t.Error("forced out nobody")
		}
		hosts[4] = n.start(t, 5, nil)
		within(t, 10*time.Second, "h5 is back", func() bool { return whole(hosts...) })
	})
}

func TestReap_TheLongDeadCountAsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		quick := func(c *Config) { c.ReconnectTimeout, c.TombstoneTimeout = 10*time.Minute, 5*time.Minute }
		hosts := []*host{n.start(t, 1, quick), n.start(t, 2, quick), n.start(t, 3, quick)}
		within(t, 10*time.Second, "all see all", func() bool { return whole(hosts...) })
		hosts[2].stop()
		within(t, 10*time.Second, "h3 is out", func() bool { return all(hosts[:2], "h3", membership.Failed) })
		time.Sleep(11 * time.Minute)
		if s := hosts[0].sees("h3"); s != membership.Left {
			t.Errorf("got %v, want left", s)
		}
		time.Sleep(6 * time.Minute)
		if known := hosts[0].Members().ByName("h3") != nil; known || hosts[0].Members().Life(id(3)) != membership.Left {
			t.Errorf("known %v, life %v", known, hosts[0].Members().Life(id(3)))
		}
	})
}

func TestSnapshot_ARestartedHostFindsTheOthersByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		dir := t.TempDir()
		own := func(c *Config) { c.Dir = dir }
		hosts := n.cluster(t, 4)
		last := n.start(t, 5, own)
		within(t, 10*time.Second, "all see all", func() bool { return whole(append(hosts, last)...) })
		hosts[3].stop()
		within(t, 10*time.Second, "h4 is out", func() bool { return last.sees("h4") == membership.Failed })
		last.stop()
		time.Sleep(time.Minute)
		hosts[2].stop()
		last = n.start(t, 5, func(c *Config) { c.Dir, c.RetryJoin = dir, nil })
		if last.sees("h1") != membership.Alive || last.sees("h4") != membership.Failed || last.Members().Life(id(4)) != membership.Failed {
			t.Errorf("the snapshot says h1 %v, h4 %v", last.sees("h1"), last.sees("h4"))
		}
		within(t, 10*time.Second, "whole again", func() bool { return whole(hosts[0], hosts[1], last) })
		within(t, 30*time.Second, "who died meanwhile is out", func() bool { return last.sees("h3") == membership.Failed })
		if err := last.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		last.stop()
		last = n.start(t, 5, func(c *Config) { c.Dir, c.RetryJoin = dir, nil })
		time.Sleep(time.Minute)
		if m := last.Members().Members(); len(m) != 1 {
			t.Errorf("rejoined after it left: %v", m)
		}
		last.stop()
		last = n.start(t, 5, func(c *Config) { c.Dir = dir })
		within(t, 10*time.Second, "joins by retry_join", func() bool { return whole(hosts[0], hosts[1], last) })
	})
}

func TestLoss_20PercentEachWayShowsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 7)
		var seen []*history
		for _, h := range hosts {
			for _, other := range hosts {
				if h != other {
					seen = append(seen, h.watch(other.self.Name))
				}
			}
		}
		n.lose(0.2)
		time.Sleep(10 * time.Minute)
		for _, s := range seen {
			if slices.Contains(s.list(), membership.Failed) {
				t.Errorf("a healthy host was out: %v", s.list())
			}
		}
		suspicions := uint64(0)
		for _, h := range hosts {
			h.mu.Lock()
			suspicions += h.machine.Counts().Suspicions
			h.mu.Unlock()
		}
		t.Logf("%d suspicions in 10 minutes at 7 hosts", suspicions)
	})
}

func TestRule20_LinkRefusedIsAConfirmedSuspicionUntilTheNextAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 3)
		time.Sleep(10 * time.Second)
		lives := make(chan string, 16)
		late := n.start(t, 4, func(c *Config) { c.OnLife = func(id string) { lives <- id } })
		within(t, 10*time.Second, "all see all", func() bool { return whole(append(hosts, late)...) })
		for len(lives) > 0 {
			<-lives
		}
		hosts[2].stop()
		late.LinkRefused(id(3))
		if late.Members().Life(id(3)) != membership.Failed {
			t.Errorf("got %v at once, want failed", late.Members().Life(id(3)))
		}
		if got := <-lives; got != id(3) {
			t.Errorf("told of %s", got)
		}
		hosts[2] = n.start(t, 3, nil)
		began := time.Now()
		within(t, 15*time.Second, "it is back", func() bool { return late.Members().Life(id(3)) == membership.Alive })
		if took := time.Since(began); took < membership.DefaultHoldDown {
			t.Errorf("back after %v, held down for less than %v", took, membership.DefaultHoldDown)
		}
		late.LinkRefused("nobody")
	})
}

func TestRule21_AServersWordEndsTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		var confirms atomic.Bool
		late := n.start(t, 6, func(c *Config) { c.Confirmed = func(string) bool { return confirms.Load() } })
		within(t, 10*time.Second, "all see all", func() bool { return whole(append(hosts, late)...) })
		time.Sleep(2 * time.Minute)
		for _, h := range hosts {
			h.stop()
		}
		within(t, time.Minute, "it suspects itself", late.guarded)
		time.Sleep(5 * time.Minute)
		for _, h := range hosts {
			if s := late.sees(h.self.Name); s == membership.Failed {
				t.Errorf("%s is %v under the guard", h.self.Name, s)
			}
		}
		confirms.Store(true)
		within(t, 3*time.Second, "the dead are out", func() bool {
			return !late.guarded() && all([]*host{late}, "h1", membership.Failed) && late.sees("h5") == membership.Failed
		})
	})
}

func TestRule19_RestoredLifeFillsOnlyWhatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 2)
		h := hosts[0]
		h.Restore([]membership.Life{{ID: id(2), Name: "h2", Status: membership.Failed, Since: time.Now()}})
		h.Restore([]membership.Life{{ID: id(7), Name: "h7", Status: membership.Failed, Since: time.Now()}})
		h.Restore([]membership.Life{{ID: id(8), Name: "h8", Status: membership.Left, Since: time.Now()}})
		h.Restore([]membership.Life{{ID: id(7), Name: "h7", Status: membership.Alive, Since: time.Now()}})
		for i, want := range map[int]membership.Status{1: membership.Alive, 2: membership.Alive, 7: membership.Failed, 8: membership.Left, 9: membership.NeverSeen} {
			if got := h.Members().Life(id(i)); got != want {
				t.Errorf("host %d: got %v, want %v", i, got, want)
			}
		}
		n.start(t, 7, nil)
		if within(t, 20*time.Second, "it answers", func() bool { return h.Members().Life(id(7)) == membership.Alive }) < membership.DefaultHoldDown {
			t.Error("a host said to be dead came back without hold-down")
		}
	})
}

func TestRetryJoin_GoesOnForThoseThatWereNotUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		// Two agents that name each other and a server: they meet before it is there.
		list := func(c *Config) {
			c.RetryJoin = []string{address(1).String(), address(2).String(), address(3).String()}
		}
		agents := []*host{n.start(t, 2, list), n.start(t, 3, list)}
		within(t, 10*time.Second, "the agents meet", func() bool { return whole(agents...) })
		time.Sleep(20 * time.Second)
		server := n.start(t, 1, nil)
		within(t, time.Minute, "the server is met, though it calls nobody", func() bool { return whole(server, agents[0], agents[1]) })
	})
}

func TestCallLost_WhoComesBackWithNothingIsMetSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		hosts[0].stop()
		within(t, 20*time.Second, "its death is known", func() bool { return all(hosts[1:], "h1", membership.Failed) })
		time.Sleep(5 * time.Minute)
		hosts[0] = n.start(t, 1, nil) // h1 calls nobody
		took := within(t, 2*callLeast, "it is met", func() bool { return hosts[0].sees("h2") == membership.Alive })
		t.Logf("met after %v", took)
	})
}
