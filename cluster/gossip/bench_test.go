package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"meibo/cluster/membership"
)

// BenchmarkMembers is what each caller pays who looks for one member of 5,000, for
// the servers among them, or through all of them.
func BenchmarkMembers(b *testing.B) {
	at := netip.MustParseAddrPort("10.9.0.1:8301")
	g, err := New(Config{ID: id(1), Name: "h1", Bind: at, Network: newNetwork().Host(at.Addr())})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	g.with(func(m *membership.Machine, now time.Time) {
		for i := range 5000 {
			role := "node"
			if i%1000 == 0 {
				role = "consul"
			}
			n := membership.Node{Name: fmt.Sprintf("n%d", i), ID: id(i + 2), Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Port: 1, Life: 7}
			n.Tags = map[string]string{membership.TagID: n.ID, membership.TagRole: role}
			m.Alive(now, n)
		}
	})
	for name, look := range map[string]func() bool{
		"all":     func() bool { return len(g.Members().Members()) == 5001 },
		"by ID":   func() bool { return g.Members().ByID(id4321).Name == "n4319" },
		"by name": func() bool { return g.Members().ByName("n4321") != nil },
		"by role": func() bool { return len(g.Members().Role("consul")) == 5 },
		"a life":  func() bool { return g.Members().Life(id4321) == membership.Alive },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !look() {
					b.Fatal("not found")
				}
			}
		})
	}
}

var id4321 = id(4321)
