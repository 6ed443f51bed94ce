package fleet

import (
	"fmt"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
)

// healedWithin is how long a cluster may take to be whole after what parted it.
const healedWithin = 30 * time.Second

// TestFleet_HealsAfterASplit splits the cluster in halves and joins it again.
func TestFleet_HealsAfterASplit(t *testing.T) {
	beside(t)
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		f.start()
		servers, agents := f.servers(), f.agents()
		half := []*fleetHost{servers[0], agents[0], agents[2], agents[4]}
		f.client.apart(half, but(f.hosts, half...))
		f.part(half, but(f.hosts, half...))
		f.client.soak(long(90*time.Second, 15*time.Second))
		for _, h := range f.hosts {
			hosttest.Must(t, f.client.answersOn(h))
		}
		f.rejoin(t, fmt.Sprintf("%v in halves", long(90*time.Second, 15*time.Second)))
		f.client.check()
	})
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
	if hosttest.Verifying() && !raceEnabled && whole+answers > healedWithin {
		t.Errorf("whole again after %v, want ≤ %v", whole+answers, healedWithin)
	}
}
