package feed_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
)

// inBubble runs a test in fake time.
func inBubble(t *testing.T, test func(t *testing.T, c *catalogue, n *network)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCatalogue(t)
		c.begin(historyA, 1000)
		c.do(register("n1", "web", "w1", catalog.Passing))
		test(t, c, newNetwork(t))
	})
}

// settle lets time pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRule13_LaggingServerTellsNothingUntilItIsPastTheHost(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, subscriptions)
		r := n.receiver(host, "web")
		c.do(register("n2", "web", "w1", catalog.Passing))
		r.equals(c)

		lagging := c.replica(2)
		n.start("s2", lagging.store, subscriptions)
		n.setDown("s1", true)
		n.cut("s1")
		before := r.count()
		settle(10 * time.Second)
		if told := r.count() - before; told > 1 { // one may have been on its way
			t.Errorf("a server that lags told %d updates: %+v", told, r.last())
		}
		if addr, _ := r.client.Server(); addr != "s2" {
			t.Errorf("the host is with %q, want s2", addr)
		}
		c.do(register("n3", "web", "w1", catalog.Passing))
		lagging.catchUp(c, c.index)
		r.equals(lagging)
		if p := r.now(); p.resets != 1 {
			t.Errorf("%d resets, want 1: the host went on where it was", p.resets)
		}
	})
}

func TestRule14_AnotherHistoryIsToldOnlyByAServerWithALeader(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)

		other := newCatalogue(t)
		other.begin(historyB, 1<<30)
		other.do(register("n9", "mail", "m1", catalog.Passing))
		n.setDown("s1", true)
		alone := n.startWith("s2", other.store, false, nil)
		n.cut("s1")
		settle(20 * time.Second)
		if p := r.now(); p.History.ID != historyA || !p.Names["web"] || p.Names["mail"] {
			t.Fatalf("without a leader the host was told history %s, names %v", p.History.ID, p.Names)
		}
		alone.leader.Store(true)
		r.equals(other)
	})
}

func TestRule14_HostThatKnowsNothingWaitsForALeaderToo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		alone := n.startWith("s1", c.store, false, nil)
		r := n.receiver(host)
		settle(20 * time.Second)
		if r.count() > 0 {
			t.Fatalf("told %+v", r.last())
		}
		alone.leader.Store(true)
		settle(200 * time.Millisecond)
		r.equals(c)
	})
}

func TestRule27_HostMovesOnlyToAServerThatHasALeader(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		s1 := n.start("s1", c.store, nil)
		s2 := n.start("s2", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		first, _ := r.client.Server()
		here, there := s1, s2
		if first == "s2" {
			here, there = s2, s1
		}

		// Nobody has a leader: the stream stays, changes come, unconfirmed.
		there.leader.Store(false)
		settle(time.Second)
		here.leader.Store(false)
		settle(10 * time.Second)
		c.do(register("n2", "web", "w1", catalog.Passing))
		r.equals(c)
		if addr, _ := r.client.Server(); addr != first || r.streams() != "[]" {
			t.Errorf("the host is with %q after streams ended with %v, want it to stay with %q", addr, r.streams(), first)
		}
		if r.last().Confirmed {
			t.Error("an update of a server without a leader is confirmed")
		}
		// The other has one: the host goes there, and nothing is sent twice.
		there.leader.Store(true)
		settle(time.Minute)
		if addr, _ := r.client.Server(); addr == first || addr == "" {
			t.Errorf("the host is with %q though only the other server has a leader", addr)
		}
		if p := r.now(); !p.Confirmed || p.resets != 1 {
			t.Errorf("confirmed %v after %d resets, want true, 1", p.Confirmed, p.resets)
		}
	})
}

func TestRule27_ServerNamesOthersThatHaveALeader(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		s1 := n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.Others = func() []string { return []string{"s2"} } })
		r := n.receiver(host)
		r.equals(c)
		// The host itself doesn't know s2 to be alive.
		n.start("s2", c.store, nil)
		r.setServers("s1")
		s1.leader.Store(false)
		settle(5 * time.Second)
		if addr, _ := r.client.Server(); addr != "s2" {
			t.Errorf("the host is with %q, want s2, which its server named", addr)
		}
	})
}

func TestRule27_ConfirmationsEndWhenTheLeaderHasNotBeenHeardFor2Seconds(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		var mu sync.Mutex
		heard := time.Now()
		n.start("s1", c.store, func(cfg *feed.ServerConfig) {
			cfg.Leader = func() (bool, time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				return true, time.Since(heard)
			}
		})
		r := n.receiver(host)
		r.equals(c)
		settle(1500 * time.Millisecond)
		if !r.last().Confirmed {
			t.Fatal("not confirmed 1.5 s after the leader was heard")
		}
		settle(time.Second)
		before := r.count()
		settle(5 * time.Second)
		if told := r.count() - before; told != 0 {
			t.Errorf("%d updates though nothing changed and nobody vouches: %+v", told, r.last())
		}
	})
}

func TestRule27_CutCableIsFoundWithin3SecondsAtBothEnds(t *testing.T) {
	for _, speak := range []time.Duration{0, 10 * time.Second} { // the connection finds it where hosts say little
		t.Run(fmt.Sprint("a word every ", speak), func(t *testing.T) { inBubble(t, cutCable(speak)) })
	}
}

func cutCable(speak time.Duration) func(t *testing.T, c *catalogue, n *network) {
	return func(t *testing.T, c *catalogue, n *network) {
		var mu sync.Mutex
		var ended time.Time
		if speak > 0 {
			n.DeadAfter = 3 * time.Second
		}
		n.start("s1", c.store, func(cfg *feed.ServerConfig) {
			cfg.HostsSpeak = speak
			cfg.OnStream = func(_ string, up bool) {
				mu.Lock()
				defer mu.Unlock()
				if !up && ended.IsZero() {
					ended = time.Now()
				}
			}
		})
		r := n.receiver(host)
		r.equals(c)
		settle(2500 * time.Millisecond)
		cut := time.Now()
		n.unplug("s1")
		settle(3100 * time.Millisecond)
		if !strings.Contains(r.streams(), "feed from s1: ") { // which of the two is first is chance
			t.Errorf("the host hasn't noticed: %s", r.streams())
		}
		if ended.IsZero() || ended.Sub(cut) > 3*time.Second {
			t.Errorf("the server noticed %s after the cut, want within 3 s", ended.Sub(cut))
		}
	}
}

func TestHostsSpeakAsOftenAsTheServerWants(t *testing.T) {
	for _, tc := range []struct {
		speak       time.Duration
		least, most int // words in a minute
	}{{0, 40, 61}, {10 * time.Second, 5, 7}, {time.Minute, 0, 2}} {
		t.Run(fmt.Sprint(tc.speak), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *catalogue, n *network) {
				n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.HostsSpeak = tc.speak })
				dial := n.dial(host)
				var conn *tap
				client := feed.NewClient(feed.ClientConfig{
					Dial: func(ctx context.Context, addr string) (net.Conn, error) {
						to, err := dial(ctx, addr)
						conn = &tap{Conn: to}
						return conn, err
					},
					Servers: func() []string { return []string{"s1"} }, NodeID: host,
				})
				s, err := client.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for err == nil {
					_, err = s.Next(ctx)
				}
				if ctx.Err() == nil {
					t.Fatalf("the stream ended: %v", err)
				}
				const beat = "0000000105"
				said := 0
				for _, line := range conn.lines {
					said += strings.Count(strings.TrimPrefix(line, "> "), beat)
				}
				if said < tc.least || said > tc.most {
					t.Errorf("%d words in a minute, want %d to %d", said, tc.least, tc.most)
				}
			})
		})
	}
}

func TestAHostThatHangsIsCutOffAfterThreeWordsThatAreMissing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.HostsSpeak = 5 * time.Second })
		conn, err := n.dial(host)(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, frame := range []string{"0000002c01012431303030303030302d303030302d343030302d383030302d3030303030303030303030310364633100", "0000000702000000000000"} { // hello and begin
			b, err := hex.DecodeString(frame)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatal(err)
		}
		if lasted := time.Since(began); lasted < 15*time.Second || lasted > 16*time.Second {
			t.Errorf("cut off after %s, want 15 s", lasted)
		}
	})
}

func TestRule28_SlowHostIsCutOffAndBroughtUpToDate(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.Window = lessThanAChange
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		r.slow.Lock()
		settle(time.Second) // it takes what it waits for, and no more
		for range 1000 {
			c.do(register("n2", "web", "w1", catalog.Passing))
			c.do(register("n2", "web", "w1", catalog.Critical))
		}
		settle(11 * time.Second)
		if !strings.Contains(n.failures(), "the host has not read for 10s: cut off") {
			t.Errorf("the server says %s", n.failures())
		}
		before := r.count()
		r.slow.Unlock()
		r.equals(c)
		parts := 0
		for _, u := range r.since(before) {
			parts += len(u.Parts)
		}
		if parts > 2 { // one may have been half-way through
			t.Errorf("2,000 changes of one thing came as %d, want only the newest", parts)
		}
	})
}

func TestRule28_HostThatPausesGetsOnlyTheNewestOfEachThing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.Window = lessThanAChange
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		r.slow.Lock()
		for i := range 50 {
			c.do(register("n2", "web", "w1", []string{catalog.Passing, catalog.Critical}[i%2]))
			settle(100 * time.Millisecond)
		}
		before := r.count()
		r.slow.Unlock()
		r.equals(c)
		parts := 0
		for _, u := range r.since(before) {
			parts += len(u.Parts)
		}
		if parts > 3 || r.streams() != "[]" {
			t.Errorf("50 changes came as %d parts over streams that ended with %s, want 3 at most over one", parts, r.streams())
		}
	})
}

func TestHostResumesWithWhatItMissed(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		for i := range 50 {
			c.do(register(fmt.Sprintf("m%02d", i), "db", "d1", catalog.Passing))
		}
		n.start("s1", c.store, subscriptions)
		n.start("s2", c.store, subscriptions)
		r := n.receiver(host, "web", "db")
		r.equals(c)
		settle(time.Second)
		for _, addr := range []string{"s1", "s2", "s1"} {
			n.setDown("s1", true)
			n.setDown("s2", true)
			n.cut("s1")
			n.cut("s2")
			c.do(&catalog.Deregister{Node: "m07"})
			c.do(register("m08", "db", "d1", catalog.Critical))
			before := r.count()
			n.setDown(addr, false)
			r.equals(c)
			nodes, parts := 0, 0
			for _, u := range r.since(before) {
				nodes += len(u.Nodes)
				parts += len(u.Parts)
			}
			if p := r.now(); p.resets != 1 || nodes > 1 || parts > 1 {
				t.Errorf("by %s: %d resets, %d nodes, %d parts told: want what changed alone", addr, p.resets, nodes, parts)
			}
			settle(time.Second)
			c.do(register("m08", "db", "d1", catalog.Passing))
			r.equals(c)
			settle(time.Second)
		}
	})
}

// The host was told of a state that its next server went past without a look.
func TestHostResumesFromAStateThatThisServerNeverSaw(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		c.do(register("n2", "db", "d1", catalog.Passing))
		n.start("s1", c.store, nil)
		other := c.replica(c.index - 1)
		n.start("s2", other.store, nil)
		n.setDown("s2", true)
		r := n.receiver(host)
		r.equals(c)
		settle(time.Second)
		seen := c.index
		c.do(&catalog.Deregister{Node: "n1"}) // the last of web
		r.equals(c)
		n.setDown("s1", true)
		n.cut("s1")
		c.do(register("n3", "web", "w1", catalog.Passing)) // web again

		other.catchUp(c, seen)
		synctest.Wait() // s2 pauses for a moment after this change
		other.catchUp(c, c.index)
		n.setDown("s2", false)
		r.equals(other)
		if p := r.now(); p.resets != 1 {
			t.Errorf("%d resets, want 1", p.resets)
		}
	})
}

func TestHostThatMissedTooManyDeparturesIsToldAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.Limits.Gone = 4 })
		for i := range 10 {
			c.do(register(fmt.Sprintf("m%02d", i), "", "", catalog.Passing))
		}
		r := n.receiver(host)
		r.equals(c)
		n.setDown("s1", true)
		n.cut("s1")
		for i := range 10 {
			c.do(&catalog.Deregister{Node: fmt.Sprintf("m%02d", i)})
			settle(time.Second)
		}
		n.setDown("s1", false)
		r.equals(c)
		if p := r.now(); p.resets != 2 {
			t.Errorf("%d resets, want 2", p.resets)
		}
	})
}

func TestTransactionIsToldAsAWhole(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		settle(time.Second)
		reg := register("n5", "mail", "m1", catalog.Warning)
		reg.Checks = append(reg.Checks, &catalog.Check{CheckID: catalog.SerfHealth, Status: catalog.Passing})
		c.do(reg)
		settle(10 * time.Millisecond) // before the next word that the server is there
		u := r.last()
		if len(u.Nodes) != 1 || len(u.Nodes[0].Checks) != 1 || len(u.Names) != 1 || len(u.Parts) != 1 || len(u.Parts[0].Checks) != 1 {
			t.Errorf("the last update is %+v, want a node, a name and a part", u)
		}
		if u.Index != 1000+c.index {
			t.Errorf("its index is %d, want %d", u.Index, 1000+c.index)
		}
	})
}

func TestOutputOfChecksRidesAlongWithTheNextChange(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		reg := register("n1", "web", "w1", catalog.Passing)
		r.equals(c)
		reg.Checks[0].Output = "200 OK"
		c.do(reg)
		settle(time.Minute)
		output := func() string { return r.now().Parts["web"]["n1"].Checks[0].Output }
		if got := output(); got != "" {
			t.Errorf("output %q was told by itself", got)
		}
		reg.Service.Port = 81
		c.do(reg)
		r.equals(c)
		if got := output(); got != "200 OK" {
			t.Errorf("output is %q after the service changed", got)
		}
		// A host that comes new is told the newest.
		reg.Checks[0].Output = "204"
		c.do(reg)
		settle(time.Second)
		late := n.receiver(nodeID("late"))
		late.equals(c)
		if got := late.now().Parts["web"]["n1"].Checks[0].Output; got != "204" {
			t.Errorf("a new host was told output %q", got)
		}
	})
}

func TestMarksAndTombstonesAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, subscriptions)
		r := n.receiver(host)
		r.equals(c)
		c.do(&catalog.MarkSynced{NodeID: nodeID("n1"), History: historyA})
		c.do(&catalog.Forget{Node: "old"})
		r.equals(c)
		p := r.now()
		if got := p.Nodes["n1"].Node.Synced; got != historyA {
			t.Errorf("n1 is synced in %q, want %q", got, historyA)
		}
		if !p.Tombs[catalog.Tombstone{Node: "old", Index: 1000 + c.index}] {
			t.Errorf("tombstones are %v", p.Tombs)
		}
		late := n.receiver(nodeID("late"))
		late.equals(c)
		if got := late.now().Tombs; len(got) != 1 {
			t.Errorf("a new host is told tombstones %v", got)
		}
	})
}

func TestWholeGoesOnBelowTheBoundAndOffAboveTwiceThat(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.WholeBelow = 2000 })
		r := n.receiver(host, "web")
		r.equals(c)
		var modes []string
		note := func() {
			c.do(register("n1", "web", "w1", catalog.Passing))
			r.equals(c)
			mode := fmt.Sprint(r.now().Whole)
			if len(modes) == 0 || modes[len(modes)-1] != mode {
				modes = append(modes, mode)
			}
		}
		for i := range 60 {
			c.do(register(fmt.Sprintf("m%02d", i), "db", "d1", catalog.Passing))
			note()
		}
		for i := range 60 {
			c.do(&catalog.Deregister{Node: fmt.Sprintf("m%02d", i)})
			note()
		}
		if got := fmt.Sprint(modes); got != "[true false true]" {
			t.Errorf("whole was %s", got)
		}
		if p := r.now(); p.resets != 3 {
			t.Errorf("%d resets, want 3", p.resets)
		}
	})
}

func TestStoppingServerSendsItsHostsElsewhere(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		servers := map[string]*server{}
		for _, addr := range []string{"s1", "s2", "s3"} {
			servers[addr] = n.start(addr, c.store, nil)
		}
		var hosts []*receiver
		for i := range 30 {
			hosts = append(hosts, n.receiver(fmt.Sprintf("30000000-0000-4000-8000-%012d", i)))
		}
		settle(7 * time.Minute) // those that met a server before it had a leader have found their place
		began := time.Now()
		servers["s1"].stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the server took %s to stop", took)
		}
		settle(100 * time.Millisecond)
		c.do(register("n2", "web", "w1", catalog.Passing))
		at := map[string]int{}
		for _, r := range hosts {
			r.equals(c)
			addr, _ := r.client.Server()
			at[addr]++
			if p := r.now(); p.resets != 1 {
				t.Errorf("%d resets, want 1", p.resets)
			}
		}
		if at["s2"] < 8 || at["s3"] < 8 {
			t.Errorf("hosts are at %v, want them spread", at)
		}
		// It comes back: those that like it best return little by little.
		n.start("s1", c.store, nil)
		settle(2 * time.Minute)
		if back := n.countAt(hosts, "s1"); back != 0 {
			t.Errorf("%d hosts are back after 2 minutes, want none yet", back)
		}
		settle(5 * time.Minute)
		if back := n.countAt(hosts, "s1"); back < 4 {
			t.Errorf("%d of 30 hosts are back after 7 minutes, want their third", back)
		}
	})
}

func TestHostsTryAgainAtGrowingIntervals(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		n.setDown("s1", true)
		r := n.receiver(host)
		settle(time.Minute)
		if dials := len(n.dialled()); dials < 30 || dials > 70 {
			t.Errorf("%d dials in a minute, want one every 1 to 2 s after the first", dials)
		}
		n.setDown("s1", false)
		settle(2 * time.Second)
		r.equals(c)
	})
}

func TestLimitsAreNamedWhenTheyRefuse(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.Limits.Streams = 6 })
		for range 5 {
			n.receiver(host)
		}
		settle(time.Second)
		if !strings.Contains(n.failures(), "this host has 4 streams already") {
			t.Errorf("a fifth stream of a host: %s", n.failures())
		}
		n.receiver(nodeID("other"))
		n.receiver(nodeID("another"))
		n.receiver(nodeID("third"))
		settle(3 * time.Second)
		if !strings.Contains(n.failures(), "this server has 6 streams, its limit") {
			t.Errorf("a seventh stream: %s", n.failures())
		}
	})
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, func(cfg *feed.ServerConfig) { cfg.WholeBelow, cfg.Limits.Names = -1, 3 })
		greedy := n.receiver(host, "a", "b", "c", "d")
		settle(time.Second)
		if !strings.Contains(greedy.streams(), "feed from s1: refused: the host subscribes to more than 3 names") {
			t.Errorf("a fourth name: %s", greedy.streams())
		}
	})
}

func TestServerSaysWhichHostsHaveAStream(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		var mu sync.Mutex
		var said []string
		n.start("s1", c.store, func(cfg *feed.ServerConfig) {
			cfg.OnStream = func(id string, up bool) {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, fmt.Sprint(id[len(id)-1:], up))
			}
		})
		a := n.receiver(host)
		settle(time.Second)
		b := n.receiver(host)
		settle(time.Second)
		a.stop()
		settle(time.Second)
		b.stop()
		settle(time.Second)
		if got := fmt.Sprint(said); got != "[1true 1false]" {
			t.Errorf("said %s, want the first beginning and the last end", got)
		}
	})
}

func TestHostThatWaitsForAnIndexHearsOfItAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, subscriptions)
		r := n.receiver(host)
		r.equals(c)
		for _, after := range []bool{false, true} {
			settle(1100 * time.Millisecond) // between two heartbeats
			if after {
				c.do(register("n1", "web", "w1", catalog.Passing)) // which changes nothing
			}
			r.client.Await(1000 + c.index + map[bool]uint64{false: 1}[after])
			if !after {
				c.do(register("n1", "web", "w1", catalog.Passing)) // which changes nothing
			}
			settle(100 * time.Millisecond)
			if p := r.now(); p.Index != 1000+c.index {
				t.Errorf("the host is at index %d, want %d", p.Index, 1000+c.index)
			}
		}
	})
}

// A change that every host is told of doesn't end the wait for a later one.
func TestHostThatAwaitsAnIndexHearsOfItAfterOtherChangesToo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		settle(2500 * time.Millisecond)
		r.client.Await(1000 + c.index + 2)
		settle(10 * time.Millisecond)
		c.do(register("n2", "web", "w1", catalog.Passing))
		settle(10 * time.Millisecond)
		c.do(register("n1", "web", "w1", catalog.Passing)) // which changes nothing
		settle(100 * time.Millisecond)
		if p := r.now(); p.Index != 1000+c.index {
			t.Errorf("the host is at index %d, want %d", p.Index, 1000+c.index)
		}
	})
}

// What is awaited while there is no stream is asked of the next one.
func TestHostThatAwaitsAnIndexBetweenTwoStreamsHearsOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		n.start("s1", c.store, nil)
		r := n.receiver(host)
		r.equals(c)
		n.setDown("s1", true)
		n.cut("s1")
		settle(10 * time.Millisecond)
		r.client.Await(1000 + c.index + 1)
		n.setDown("s1", false)
		r.until("stream", func(*snapshot) bool { addr, _ := r.client.Server(); return addr != "" && r.stream != nil })
		settle(2500 * time.Millisecond)
		before := r.count()
		c.do(register("n1", "web", "w1", catalog.Passing)) // which changes nothing
		settle(50 * time.Millisecond)
		if p := r.now(); p.Index != 1000+c.index || r.count() == before {
			t.Errorf("the host is at index %d, want %d", p.Index, 1000+c.index)
		}
	})
}
