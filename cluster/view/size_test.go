package view

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"meibo/cluster/catalog"
)

// fleet is a catalog as a host of a fleet knows it: all nodes, all names of
// services, and the contents of some.
type fleet struct {
	nodes    []*catalog.Node
	serf     []*catalog.Check // of each node
	names    []string
	services []placed
}

// placed is an instance and its check on a node.
type placed struct {
	node    int
	service *catalog.Service
	check   *catalog.Check
}

// newFleet makes nodes and names of services, of which the first known have
// instances, each on a node of its own drawn by lot.
func newFleet(nodes, names, known, instances int) *fleet {
	f := new(fleet)
	lot := rand.New(rand.NewPCG(1, 2))
	for i := range nodes {
		name := fmt.Sprintf("host-%05d.example", i)
		f.nodes = append(f.nodes, &catalog.Node{
			ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", lot.Uint32(), i), Node: name,
			Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(),
		})
		f.serf = append(f.serf, &catalog.Check{Node: name, CheckID: catalog.SerfHealth, Status: catalog.Passing})
	}
	for i := range names {
		name := fmt.Sprintf("service-%04d", i)
		f.names = append(f.names, name)
		if i >= known {
			continue
		}
		on := lot.Perm(nodes)[:instances]
		slices.Sort(on)
		for _, n := range on {
			f.services = append(f.services, placed{n,
				&catalog.Service{Node: f.nodes[n].Node, ID: name, Service: name, Port: 8080},
				&catalog.Check{Node: f.nodes[n].Node, CheckID: "service:" + name, ServiceID: name, Status: catalog.Passing}})
		}
	}
	return f
}

// base is the base set, as a feed tells it first.
func (f *fleet) base() catalog.Update {
	u := catalog.Update{History: catalog.History{ID: "h1"}, Index: 1, Reset: true, Confirmed: true, Names: slices.Clone(f.names)}
	for i, n := range f.nodes {
		u.Nodes = append(u.Nodes, catalog.NodeState{Node: n, Checks: []*catalog.Check{f.serf[i]}})
	}
	return u
}

// part is one instance as it is told, with that check.
func (f *fleet) part(p placed, c *catalog.Check) catalog.Part {
	return catalog.Part{Node: f.nodes[p.node].Node, Service: p.service.Service,
		Services: []*catalog.Service{p.service}, Checks: []*catalog.Check{c}}
}

// contents answers subscriptions, one update for each service.
func (f *fleet) contents(yield func(catalog.Update) bool) {
	for i := 0; i < len(f.services); {
		name := f.services[i].service.Service
		u := catalog.Update{History: catalog.History{ID: "h1"}, Index: 1, Complete: []string{name}}
		for ; i < len(f.services) && f.services[i].service.Service == name; i++ {
			u.Parts = append(u.Parts, f.part(f.services[i], f.services[i].check))
		}
		if !yield(u) {
			return
		}
	}
}

// view is a view that was told all of it.
func (f *fleet) view(t testing.TB) *View {
	v := mustNew(t, Config{NodeName: f.nodes[0].Node, NodeID: f.nodes[0].ID})
	v.setSource(newScripted(0))
	mustTake(t, v, f.base())
	for u := range f.contents {
		v.Want(u.Complete[0])
		mustTake(t, v, u)
	}
	return v
}

// heapOf returns how many octets what make returns keeps alive.
func heapOf[T any](make func() T) (octets int, what T) {
	heap := func() int {
		runtime.GC()
		runtime.GC() // what pools held is gone only after the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	what = make()
	return heap() - before, what
}

// The size that figures are told of: a fleet of 5,000 hosts, each of which uses 200
// services of 25 instances.
func ofThatSize() *fleet { return newFleet(5000, 2000, 200, 25) }

func TestView_TakesLittleApartFromTheRecords(t *testing.T) {
	f := ofThatSize()
	octets, v := heapOf(func() *View { return f.view(t) })
	t.Logf("%d octets, %d for each node", octets, octets/len(f.nodes))
	if octets > 1_750_000 {
		t.Errorf("%d octets for %d nodes, %d names and %d instances", octets, len(f.nodes), len(f.names), len(f.services))
	}
	s := v.Load()
	for what, look := range map[string]func() bool{
		"service": func() bool { _, _, known := s.Service("service-0007"); return known == catalog.Present },
		"node":    func() bool { n, _, _ := s.Node(f.nodes[42].Node); return n == f.nodes[42] },
		"address": func() bool {
			o, _ := s.AddressOwner(netip.MustParseAddr(f.nodes[42].Address))
			return o.Node == f.nodes[42]
		},
		"ID": func() bool { n, _ := s.NodeByIDPrefix(f.nodes[42].ID[:13]); return n == f.nodes[42] },
	} {
		if !look() {
			t.Errorf("%s: not found", what)
		}
		if n := testing.AllocsPerRun(100, func() { look() }); n > 0 {
			t.Errorf("%s: %v allocations for a lookup", what, n)
		}
	}
	runtime.KeepAlive(f)
}

// BenchmarkSize tells what a view takes apart from the records in it.
func BenchmarkSize(b *testing.B) {
	f := ofThatSize()
	for b.Loop() {
		octets, v := heapOf(func() *View { return f.view(b) })
		b.ReportMetric(float64(octets), "B/view")
		runtime.KeepAlive(v)
	}
	runtime.KeepAlive(f)
}

// BenchmarkFleet is what happens to such a view all the time.
func BenchmarkFleet(b *testing.B) {
	f := ofThatSize()
	v := f.view(b)
	index := uint64(1)
	take := func(u catalog.Update) {
		index++
		u.History.ID, u.Index = "h1", index
		mustTake(b, v, u)
	}
	b.Run("status flips", func(b *testing.B) {
		b.ReportAllocs()
		p := f.services[2000]
		flip := *p.check
		flip.Status = catalog.Critical
		checks := []*catalog.Check{&flip, p.check}
		for i := 0; b.Loop(); i++ {
			take(catalog.Update{Parts: []catalog.Part{f.part(p, checks[i%2])}})
		}
	})
	b.Run("node's status flips", func(b *testing.B) {
		b.ReportAllocs()
		flip := *f.serf[42]
		flip.Status = catalog.Critical
		checks := []*catalog.Check{&flip, f.serf[42]}
		for i := 0; b.Loop(); i++ {
			take(catalog.Update{Nodes: []catalog.NodeState{{Node: f.nodes[42], Checks: checks[i%2 : i%2+1]}}})
		}
	})
	b.Run("node comes and goes", func(b *testing.B) {
		b.ReportAllocs()
		n := &catalog.Node{ID: "0badcafe-0000-4000-8000-000000000000", Node: "host-02500a.example", Address: "10.9.9.9"}
		for b.Loop() {
			take(catalog.Update{Nodes: []catalog.NodeState{{Node: n, Checks: f.serf[:1]}}})
			take(catalog.Update{GoneNodes: []string{n.Node}})
		}
	})
	s := v.Load()
	b.Run("lookup of a service", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if instances, _, _ := s.Service(f.names[i%200]); len(instances) != 25 {
				b.Fatal(len(instances))
			}
		}
	})
	b.Run("lookup of a node", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if n, _, _ := s.Node(f.nodes[i*7919%5000].Node); n == nil {
				b.Fatal("no node")
			}
		}
	})
	b.Run("lookup of an address", func(b *testing.B) {
		addrs := make([]netip.Addr, len(f.nodes))
		for i, n := range f.nodes {
			addrs[i] = netip.MustParseAddr(n.Address)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if o, _ := s.AddressOwner(addrs[i*7919%5000]); o.Node == nil {
				b.Fatal("no owner")
			}
		}
	})
	b.Run("lookup of an ID", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok := s.NodeByIDPrefix(f.nodes[i*7919%5000].ID[:13]); !ok {
				b.Fatal("no node")
			}
		}
	})
	b.Run("begins with its file", func(b *testing.B) {
		e := v.Export()
		b.ReportAllocs()
		for b.Loop() {
			mustNew(b, Config{NodeName: f.nodes[0].Node, NodeID: f.nodes[0].ID}).Import(e, FromDisk)
		}
	})
	b.Run("exported", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Export()
		}
	})
	b.Run("the whole is told", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f.view(b)
		}
	})
}
