package leader_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
	"meibo/cluster/leader"
)

// bench is a leader at work on a catalog.
type bench struct {
	*led
	*roster
	t    *testing.T
	stop func()
}

// lead begins a leader's term in a bubble; the bubble's end must be preceded by
// a call of stop.
func lead(t *testing.T, c *led, cfg leader.Config) *bench {
	t.Helper()
	b := &bench{led: c, roster: &roster{}, t: t}
	b.set()
	b.again(cfg)
	return b
}

// again begins another term with the members as they are.
func (b *bench) again(cfg leader.Config) {
	cfg.Catalog, cfg.Members = b.led, b.roster
	l := mustNew(b.t, cfg)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	b.stop = func() { cancel(); <-done }
	synctest.Wait()
}

// be changes the members and waits until the leader has seen it.
func (b *bench) be(members ...leader.Member) {
	b.set(members...)
	b.settle(3 * time.Second)
}

func (b *bench) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) want(what string, lines ...string) {
	b.t.Helper()
	if diff := cmp.Diff(append([]string{}, lines...), b.show()); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (b *bench) register(r *catalog.Register) {
	b.t.Helper()
	if err := b.Apply(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
}

// crowd are members m0 to mn-1.
func crowd(n int, status leader.Status) []leader.Member {
	var members []leader.Member
	for i := range n {
		m := member(fmt.Sprintf("m%d", i), fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "192.0.2.1", status)
		m.Since = time.Now()
		members = append(members, m)
	}
	return members
}

func TestRule21_TheLeaderCommitsNoFailureUnderTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		all := crowd(6, leader.Alive)
		b.be(all...)
		failed := func(n int) []string {
			var lines []string
			for i := range 6 {
				status := catalog.Passing
				if i < n {
					status = catalog.Critical
				}
				lines = append(lines, fmt.Sprintf("m%d 192.0.2.1 serfHealth=%s", i, status))
			}
			return lines
		}
		b.be(append(crowd(1, leader.Failed), all[1:]...)...)
		b.want("one fails", failed(1)...)
		b.settle(10 * time.Minute)

		// The others' failures trickle in before the guard is on.
		now := append(crowd(3, leader.Failed), all[3:]...)
		now[0].Since = now[0].Since.Add(-10 * time.Minute)
		b.be(now...)
		b.want("two more", failed(3)...)
		more := append(crowd(5, leader.Failed), all[5])
		more[0].Since = now[0].Since
		b.setGuarded(true, more...)
		b.settle(3 * time.Second)
		b.want("the guard is on: what put it on is taken back, what was before isn't", failed(1)...)
		b.settle(10 * time.Minute)
		b.want("it stays on", failed(1)...)
		b.be(more...)
		b.want("confirmed", failed(5)...)
	})
}

func TestRule21_ANewLeaderUnderTheGuardWritesNoOldFailureEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(crowd(4, leader.Alive)...)
		b.stop()
		dead := crowd(4, leader.Failed)
		time.Sleep(time.Hour)
		b.setGuarded(true, dead...)
		b.again(leader.Config{})
		writes := b.written()
		b.settle(time.Hour)
		if n := b.written() - writes; n > 0 {
			t.Errorf("%d writes: %v", n, b.show())
		}
	})
}

func TestRule19_AHostThatWasRenamedMovesItsRecord(t *testing.T) {
	for _, old := range []leader.Status{leader.Failed, leader.Left} {
		t.Run(old.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := lead(t, newLed(), leader.Config{})
				defer func() { b.stop() }()
				b.be(member("one", id1, "192.0.2.1", leader.Alive))
				b.be(member("one", id1, "192.0.2.1", old), member("two", id1, "192.0.2.1", leader.Alive))
				b.want("renamed", "two 192.0.2.1 serfHealth=passing")
				b.be(member("two", id1, "192.0.2.1", leader.Failed))
				b.want("it fails", "two 192.0.2.1 serfHealth=critical")
			})
		})
	}
}

func TestConflict_MembersInDoubtAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		one := member("one", id1, "192.0.2.1", leader.Alive)
		b.be(one)
		doubtful := member("one", id2, "192.0.2.2", leader.Failed)
		doubtful.Conflict = "192.0.2.1 and 192.0.2.2 both claim the name one"
		b.be(doubtful)
		b.want("two of a name", "one 192.0.2.1 serfHealth=passing")
		b.settle(time.Hour)
		b.want("for long", "one 192.0.2.1 serfHealth=passing")
		b.be(one)
		b.want("settled", "one 192.0.2.1 serfHealth=passing")

		// A cloned image: one ID, two names. Who has the record keeps it.
		writes := b.written()
		b.be(member("clone", id1, "192.0.2.3", leader.Alive), one)
		b.settle(time.Hour)
		b.want("two of an ID", "one 192.0.2.1 serfHealth=passing")
		if n := b.written() - writes; n > 0 {
			t.Errorf("%d writes though nothing was to be done", n)
		}
	})
}

func TestName_OfALivingHostIsRefusedToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(member("one", id1, "192.0.2.1", leader.Alive))
		service := &catalog.Register{Node: catalog.Node{Node: "one", ID: id1}, SkipNodeUpdate: true, Service: &catalog.Service{Service: "web", Port: 80}}
		b.register(service)

		b.be(member("one", id2, "192.0.2.2", leader.Alive))
		b.want("at once", "one 192.0.2.1 web:80map[] serfHealth=passing")
		writes := b.written()
		b.settle(30 * time.Second)
		if n := b.written() - writes; n > 0 {
			t.Errorf("%d writes: a refusal is no reason to ask again soon", n)
		}
		b.settle(3 * time.Minute)
		b.want("whose node is no member, and gossip sees no conflict", "one 192.0.2.2 serfHealth=passing")
	})
}

func TestName_OfAHostThatIsGoneIsTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(member("one", id1, "192.0.2.1", leader.Alive))
		b.gone = map[string]bool{id1: true} // set up anew, with another ID
		b.be(member("one", id2, "192.0.2.1", leader.Alive))
		b.want("taken over", "one 192.0.2.1 serfHealth=passing")
		if _, node := b.led.store.Read().Node(nil, "one"); node.ID != id2 {
			t.Errorf("the node has the ID %s, want the new one", node.ID)
		}
	})
}

func TestName_OfADeadHostIsTakenWithNothingOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(member("one", id1, "192.0.2.1", leader.Alive))
		b.register(&catalog.Register{Node: catalog.Node{Node: "one", ID: id1}, SkipNodeUpdate: true, Service: &catalog.Service{Service: "web", Port: 80}})
		b.be(member("one", id1, "192.0.2.1", leader.Failed))
		b.be(member("one", id2, "192.0.2.2", leader.Alive))
		b.want("taken over", "one 192.0.2.2 serfHealth=passing")
	})
}

func TestServer_HasTheServiceConsulAsLongAsItIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		m := member("one", id1, "192.0.2.1", leader.Alive)
		m.Server = &leader.Server{Port: 8300, Meta: map[string]string{"version": "1"}}
		b.be(m)
		b.want("a server", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing")
		m.Server = &leader.Server{Port: 8300, Meta: map[string]string{"version": "2"}}
		b.be(m)
		b.want("another version", "one 192.0.2.1 consul:8300map[version:2] serfHealth=passing")
		m.Server = nil
		b.be(m)
		b.want("no server any more", "one 192.0.2.1 serfHealth=passing")
	})
}

func TestReap_ANodeThatIsNoMemberFailsAndGoesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.register(&catalog.Register{Node: catalog.Node{Node: "agentless", Address: "192.0.2.9", Agentless: true}})
		b.register(&catalog.Register{Node: catalog.Node{Node: "newcomer", Address: "192.0.2.8", ID: "00000000-0000-4000-8000-000000000099"}})
		b.be(crowd(3, leader.Alive)...)
		others := []string{"agentless 192.0.2.9", "m0 192.0.2.1 serfHealth=passing", "m1 192.0.2.1 serfHealth=passing"}
		left := crowd(2, leader.Alive)
		b.be(left...)
		b.settle(9 * time.Minute)
		b.want("for nine minutes", append(others, "m2 192.0.2.1 serfHealth=passing", "newcomer 192.0.2.8")...)
		b.settle(3 * time.Minute)
		b.want("for twelve", append(others, "m2 192.0.2.1 serfHealth=critical", "newcomer 192.0.2.8")...)
		_, checks := b.store.Read().NodeChecks(nil, "m2")
		if !strings.HasPrefix(checks[0].Notes, "No member of the cluster's gossip since 2000-01-01T00:") {
			t.Errorf("notes: %q", checks[0].Notes)
		}
		b.settle(40 * time.Hour)
		b.stop()
		b.again(leader.Config{}) // the next leader goes on where the last one was
		b.settle(31 * time.Hour)
		b.want("for 71 hours", append(others, "m2 192.0.2.1 serfHealth=critical", "newcomer 192.0.2.8")...)
		writes := b.written()
		b.settle(2 * time.Hour)
		b.want("for 73", append(others, "newcomer 192.0.2.8")...)
		if n := b.written() - writes; n != 1 {
			t.Errorf("%d writes, want the one that deregisters", n)
		}
	})
}

func TestReap_AMemberThatIsBackIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(crowd(3, leader.Alive)...)
		b.be(crowd(2, leader.Alive)...)
		b.settle(time.Hour)
		b.be(crowd(3, leader.Alive)...)
		_, checks := b.store.Read().NodeChecks(nil, "m2")
		if checks[0].Status != catalog.Passing || checks[0].Notes != "" {
			t.Errorf("got %+v", checks[0])
		}
	})
}

// A leader whose gossip has nobody yet, or no more, judges nobody by that.
func TestReap_MostOfTheClusterIsNotAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(crowd(7, leader.Alive)...)
		b.be(crowd(1, leader.Alive)...)
		writes := b.written()
		b.settle(100 * time.Hour)
		if n := b.written() - writes; n > 0 {
			t.Errorf("%d writes: %v", n, b.show())
		}
	})
}

func TestRound_CostsWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		b := lead(t, newLed(), leader.Config{})
		defer func() { b.stop() }()
		b.be(crowd(n, leader.Alive)...)
		b.settle(leader.DefaultEvery)
		asked, writes := b.queried(), b.written()
		for i := range 20 {
			now := crowd(n, leader.Alive)
			now[i].Status = leader.Failed
			b.set(now...)
			time.Sleep(100 * time.Millisecond)
		}
		b.settle(3 * time.Second)
		if got := b.queried() - asked; got > 500 {
			t.Errorf("%d queries for 20 changes in 2 s", got)
		}
		if got := b.written() - writes; got > 40 || got < 2 {
			t.Errorf("%d writes for 20 changes that overtook each other", got)
		}
		asked = b.queried()
		b.settle(leader.DefaultEvery)
		if got := b.queried() - asked; got > 5*n {
			t.Errorf("%d queries in a minute without change", got)
		}
	})
}
