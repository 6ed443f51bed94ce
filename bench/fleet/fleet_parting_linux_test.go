package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meibo/bench/netswitch"
)

// healedWithin is how long a cluster may take to be whole after what parted it.
const healedWithin = 30 * time.Second

// TestFleet_AnswersInPartitions parts hosts from one another: a server of the minority with its agent, one agent, and a
// pair in one direction; then each server alone.
func TestFleet_AnswersInPartitions(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		f.start()
		w := newWitness(f)
		agents := f.agents()
		lone, deaf, heard := agents[2], agents[3], agents[4]
		minority := []*fleetHost{but(f.servers(), f.leader())[0], agents[0]}
		majority := but(f.hosts, minority[0], minority[1], lone)

		begin := w.mark()
		f.part(minority, but(f.hosts, minority...))
		f.part([]*fleetHost{lone}, but(f.hosts, lone))
		f.net.Set(heard.n, deaf.n, netswitch.Path{Cut: true}) // deaf is heard by it, and doesn't hear it
		out := w.outOn(t, minority[1], majority)
		w.outOn(t, minority[0], majority)
		w.outOn(t, lone, majority)
		t.Logf("a minority is left out by the others after %d ms", out.Milliseconds())
		f.client.soak(long(30*time.Second, 3*time.Second))
		eventually(t, "the agent of the minority says stale", func() error { return isStale(minority[1]) })
		eventually(t, "the lone agent says stale", func() error { return isStale(lone) })
		f.rejoin(t, "a minority and an agent")
		parted := append(minority, lone)
		w.calm(t, begin, func(viewer, of *fleetHost) bool {
			return slices.Contains(parted, of) // nor did those who are parted take out others
		})
		for _, h := range parted { // each thought that the others were dead, and suspected itself
			w.once(t, h, majority, begin)
		}

		servers := f.servers()
		slices.SortFunc(servers, func(a, b *fleetHost) int { // the leader first: the short form takes but one
			return map[bool]int{true: -1, false: 1}[a == f.leader()]
		})
		for _, s := range servers[:min(times(3), 3)] {
			begin := w.mark()
			rest := but(f.hosts, s)
			f.part([]*fleetHost{s}, rest)
			out := w.outOn(t, s, rest)
			lead := eventually(t, "another leads", func() error {
				return agents[0].call("PUT", "/v1/catalog/register", `{"Node":"ext","Address":"192.0.2.1"}`, nil)
			})
			t.Logf("a server alone is left out after %d ms, writes are back %d ms later", out.Milliseconds(), lead.Milliseconds())
			f.client.soak(long(15*time.Second, time.Second))
			f.rejoin(t, "a server alone")
			w.calm(t, begin, func(_, of *fleetHost) bool { return of == s })
		}
		f.client.check()
	})
}

// TestFleet_HealsAfterASplit splits the cluster in halves and joins it again.
func TestFleet_HealsAfterASplit(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		f.start()
		servers, agents := f.servers(), f.agents()
		half := []*fleetHost{servers[0], agents[0], agents[2], agents[4]}
		f.client.apart(half, but(f.hosts, half...))
		f.part(half, but(f.hosts, half...))
		f.client.soak(long(90*time.Second, 15*time.Second))
		for _, h := range f.hosts {
			must(t, f.client.answersOn(h))
		}
		f.rejoin(t, fmt.Sprintf("%v in halves", long(90*time.Second, 15*time.Second)))
		f.client.check()
	})
}

// TestFleet_LeavesOutTheMisrouted has one host that hears all and is heard by none, and one that is heard by all and
// hears none.
func TestFleet_LeavesOutTheMisrouted(t *testing.T) {
	beside(t)
	inHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		f.start()
		w := newWitness(f)
		mute, deaf := f.agents()[0], f.agents()[1]
		f.misroute(t, w, mute, "hears all and is heard by none", func(others []*fleetHost) {
			for _, o := range others {
				f.net.Set(mute.n, o.n, netswitch.Path{Cut: true})
			}
		})
		f.misroute(t, w, deaf, "is heard by all and hears none", func(others []*fleetHost) {
			for _, o := range others {
				f.net.Set(o.n, deaf.n, netswitch.Path{Cut: true})
			}
		})
		f.client.check()
	})
}

// misroute does that to a host, waits until it is left out, and joins it again.
func (f *fleet) misroute(t *testing.T, w *witness, h *fleetHost, how string, do func(others []*fleetHost)) {
	t.Helper()
	others := but(f.hosts, h)
	begin := w.mark()
	do(others)
	f.client.fogAll(h)
	f.client.apart([]*fleetHost{h}, others)
	took := w.outOn(t, h, others)
	t.Logf("a host that %s is left out after %d ms", how, took.Milliseconds())
	f.client.fallsAll(h)
	f.client.soak(long(35*time.Second, 8*time.Second))
	f.rejoin(t, "a host that "+how)
	f.client.soak(long(20*time.Second, time.Second))
	w.once(t, h, others, begin)
	w.calm(t, begin, func(viewer, of *fleetHost) bool { return viewer == h || of == h })
}

// part cuts a group off from a larger one. What that answers of them is open from then on. They themselves, since all but
// themselves died at once, are to suspect themselves, and to answer with everybody still.
func (f *fleet) part(a, b []*fleetHost) {
	f.client.apart(b, a)
	f.between(a, b, netswitch.Path{Cut: true})
}

// rejoin mends all that parted hosts, and waits until they are one cluster again and answer alike.
func (f *fleet) rejoin(t *testing.T, after string) {
	t.Helper()
	f.net.Heal()
	for _, h := range f.hosts {
		f.client.fogAll(h)
	}
	whole := f.whole()
	for _, h := range f.hosts {
		f.client.risesAll(h)
	}
	f.client.together(f.hosts, f.hosts)
	answers := f.client.settled()
	t.Logf("%s: one cluster again after %.1f s, all answers alike %d ms later", after, whole.Seconds(), answers.Milliseconds())
	if verifying() && !raceEnabled && whole+answers > healedWithin {
		t.Errorf("whole again after %v, want ≤ %v", whole+answers, healedWithin)
	}
}

// isStale reports that a host doesn't say so.
func isStale(h *fleetHost) error {
	s, err := h.outlook()
	if err == nil && !s.Stale {
		err = fmt.Errorf("%s says that its answers are fresh, by %s", h.name, s.Server)
	}
	return err
}
