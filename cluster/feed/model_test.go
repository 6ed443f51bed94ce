package feed_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
)

// script plays random commands and faults.
type script struct {
	*rand.Rand
	c    *catalogue
	next uint64 // base of the next history
}

func (s *script) pick(list ...string) string { return list[s.IntN(len(list))] }

func (s *script) node() string    { return s.pick("a", "A", "b", "c", "d") }
func (s *script) service() string { return s.pick("web", "Web", "db", "cache", "mq") }
func (s *script) status() string {
	return s.pick(catalog.Passing, catalog.Warning, catalog.Critical)
}

func (s *script) command() {
	switch s.IntN(12) {
	case 0, 1, 2, 3, 4:
		r := register(s.node(), s.service(), s.pick("s1", "s2", "s3"), s.status())
		r.Service.Address = s.pick("", "", "192.0.2.1", "192.0.2.9")
		r.Service.Tags = []string{s.pick("x", "y")}
		r.Checks[0].Output = fmt.Sprint(s.IntN(1000))
		s.c.do(r)
	case 5:
		s.c.do(register(s.node(), "", "", s.status()))
	case 6:
		r := register(s.node(), "", "", s.status())
		r.Node.Node = s.node() // perhaps another node's ID: a renaming
		r.Node.Meta = map[string]string{"rack": s.pick("1", "2")}
		s.c.do(r)
	case 7:
		s.c.do(&catalog.Deregister{Node: s.node()})
	case 8, 9:
		s.c.do(&catalog.Deregister{Node: s.node(), ServiceID: s.pick("s1", "s2", "s3")})
	case 10:
		s.c.do(&catalog.Forget{Node: s.pick("a", "z")})
	case 11:
		s.c.do(&catalog.MarkSynced{NodeID: nodeID(s.node()), History: historyA})
	}
}

// TestHostsPictureEqualsTheStore is the exact oracle: whatever happens to
// streams, each host knows in the end what the store holds, no more and no less.
func TestHostsPictureEqualsTheStore(t *testing.T) {
	for _, mode := range []struct {
		name   string
		change func(*feed.ServerConfig)
	}{
		{"by name", subscriptions},
		{"whole", nil},
		{"switching", func(cfg *feed.ServerConfig) { cfg.WholeBelow = 700 }},
		{"forgetful", func(cfg *feed.ServerConfig) { cfg.WholeBelow, cfg.Limits.Gone = -1, 3 }},
	} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(mode.name, " ", seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { playModel(t, seed, mode.change) })
			})
		}
	}
}

func playModel(t *testing.T, seed uint64, change func(*feed.ServerConfig)) {
	s := &script{Rand: rand.New(rand.NewPCG(seed, 1)), c: newCatalogue(t), next: 1 << 20}
	s.c.begin(historyA, 1000)
	n := newNetwork(t)
	n.Window = lessThanAChange
	n.start("s1", s.c.store, change)
	n.start("s2", s.c.store, change)
	local := n.local("s1")
	hosts := []*receiver{n.receiver(nodeID("p"), "web"), n.receiver(nodeID("q")), n.receiver(nodeID("r"), "db", "mq")}
	for range 60 {
		slow := s.IntN(3) == 0
		if slow {
			hosts[0].slow.Lock()
		}
		for range s.IntN(12) {
			s.command()
			time.Sleep(time.Duration(s.IntN(3)) * 300 * time.Microsecond)
		}
		r := hosts[s.IntN(len(hosts))]
		switch s.IntN(10) {
		case 0, 1:
			n.cut(s.pick("s1", "s2"))
		case 2, 3:
			r.subscribe(s.pick("web", "db", "cache", "mq", "none"))
		case 4:
			r.unsubscribe(s.pick("web", "db", "cache", "mq", "none"))
		case 5:
			s.next <<= 1
			s.c.begin(fmt.Sprintf("00000000-0000-4000-8000-%012x", s.next), s.next)
		}
		if slow {
			hosts[0].slow.Unlock()
		}
		if s.IntN(3) > 0 {
			continue
		}
		for _, r := range append(hosts, local) {
			r.equals(s.c)
		}
	}
}
