package feed_test

import (
	"fmt"
	"testing"
	"time"

	"meibo/cluster/feed"
)

// fleet is some of the hosts of a large fleet, all with the server at first.
func fleet(n *network, first string, hosts int) []*receiver {
	for _, addr := range n.addrs() {
		n.setDown(addr, addr != first)
	}
	var all []*receiver
	for i := range hosts {
		r := n.receiver(fmt.Sprintf("%08d-0000-4000-8000-000000000001", i))
		all = append(all, r)
	}
	settle(5 * time.Second)
	for _, addr := range n.addrs() {
		n.setDown(addr, false)
	}
	if at := n.countAt(all, first); at != hosts {
		n.t.Fatalf("%d hosts of %d are with %s", at, hosts, first)
	}
	n.dialled()
	return all
}

// mostWithin returns how many of the dials that came since the last call came
// within one span of time, where they were most, and how many there were.
func (n *network) mostWithin(span time.Duration) (most, all int) {
	at := n.dialled()
	for i := range at {
		j := i
		for j < len(at) && at[j].Sub(at[i]) <= span {
			j++
		}
		most = max(most, j-i)
	}
	return most, len(at)
}

// An election is over within a second: until then a server that has no leader
// sends nobody away.
func TestRule27_NoHostLooksElsewhereDuringAnElection(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		s1 := n.start("s1", c.store, nil)
		s2 := n.start("s2", c.store, nil)
		hosts := fleet(n, "s1", 50)
		for range 5 {
			s1.leader.Store(false)
			s2.leader.Store(false)
			settle(700 * time.Millisecond)
			s1.leader.Store(true)
			s2.leader.Store(true)
			settle(5 * time.Second)
		}
		if dials := n.dialled(); len(dials) > 0 || n.countAt(hosts, "s1") != len(hosts) {
			t.Errorf("%d dials, and %d of %d hosts stayed: want all to stay and none to look elsewhere", len(dials), n.countAt(hosts, "s1"), len(hosts))
		}
	})
}

func TestRule27_HostsOfAServerThatHasNoLeaderMoveOneAfterTheOther(t *testing.T) {
	inBubble(t, func(t *testing.T, c *catalogue, n *network) {
		s1 := n.start("s1", c.store, nil)
		n.start("s2", c.store, nil)
		hosts := fleet(n, "s1", 100)
		s1.leader.Store(false)
		settle(5 * time.Second)
		if at := n.countAt(hosts, "s2"); at != len(hosts) {
			t.Errorf("%d hosts of %d moved within 5 s", at, len(hosts))
		}
		if most, all := n.mostWithin(100 * time.Millisecond); most > all/4 {
			t.Errorf("%d of %d dials came within 100 ms", most, all)
		}
	})
}

// The hosts of a server that is lost notice it at one moment. How long they spread
// their first dials over grows with the fleet: a small one isn't held up.
func TestHostsOfALostServerComeBackOneAfterTheOther(t *testing.T) {
	for _, tc := range []struct {
		fleet  int
		within time.Duration // all are back
		spread time.Duration // less than a half of them come within this
	}{
		{10, 20 * time.Millisecond, 0},
		{5000, 1200 * time.Millisecond, 250 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(tc.fleet), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *catalogue, n *network) {
				n.change = func(cfg *feed.ClientConfig) { cfg.Hosts = func() int { return tc.fleet } }
				n.start("s1", c.store, nil)
				n.start("s2", c.store, nil)
				hosts := fleet(n, "s1", min(tc.fleet, 100))
				n.setDown("s1", true)
				n.cut("s1")
				settle(tc.within)
				if at := n.countAt(hosts, "s2"); at != len(hosts) {
					t.Errorf("%d hosts of %d are back after %s", at, len(hosts), tc.within)
				}
				if most, _ := n.mostWithin(tc.spread); tc.spread > 0 && most > len(hosts)/2 {
					t.Errorf("%d of %d came within %s", most, len(hosts), tc.spread)
				}
			})
		})
	}
}
