package view

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meibo/cluster/catalog"
)

var (
	modelNodes    = []string{"n1", "N2", "me", "n4"}
	modelServices = []string{"web", "Web", "db", "mail", "consul"}
	modelAddrs    = []string{"", "10.0.0.1", "10.0.0.2", "192.0.2.1", "host.example.com"}
)

// model is the catalog as plainly as it can be written down.
type model struct {
	catalog map[string]Record // by lower-cased node name
	own     Record
	life    lives
}

// nodes returns what shows of each node, worked out from nothing.
func (m *model) nodes() map[string]Record {
	shown := maps.Clone(m.catalog)
	if m.own.Node != nil {
		theirs := shown["me"]
		merged := Record{Node: m.own.Node}
		for _, svc := range m.own.Services {
			s := *svc
			for _, t := range theirs.Services {
				if t.ID == s.ID && s.EnableTagOverride {
					s.Tags = t.Tags
				}
			}
			merged.Services = append(merged.Services, &s)
		}
		for _, t := range theirs.Services {
			if t.ID == "consul" && !slices.ContainsFunc(merged.Services, func(s *catalog.Service) bool { return s.ID == "consul" }) {
				merged.Services = append(merged.Services, t)
			}
		}
		merged.Checks = slices.Clone(m.own.Checks)
		for _, c := range theirs.Checks {
			if c.CheckID == catalog.SerfHealth {
				merged.Checks = append(merged.Checks, c)
			}
		}
		shown["me"] = merged
	}
	for key, rec := range shown {
		if l := m.life[rec.Node.ID]; l != catalog.Failed && l != catalog.Left {
			continue
		}
		checks := []*catalog.Check{{CheckID: catalog.SerfHealth, Status: catalog.Critical}}
		for _, c := range rec.Checks {
			if c.CheckID != catalog.SerfHealth {
				checks = append(checks, c)
			}
		}
		rec.Checks = checks
		shown[key] = rec
	}
	return shown
}

// service returns what shows of a service name.
func (m *model) service(name string) string {
	var instances []catalog.Instance
	nodes := m.nodes()
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		rec := nodes[key]
		services := slices.SortedFunc(slices.Values(rec.Services), func(a, b *catalog.Service) int {
			return strings.Compare(a.ID, b.ID)
		})
		checks := slices.SortedFunc(slices.Values(rec.Checks), func(a, b *catalog.Check) int {
			if (a.ServiceID == "") != (b.ServiceID == "") {
				return strings.Compare(a.ServiceID, b.ServiceID)
			}
			return strings.Compare(a.CheckID, b.CheckID)
		})
		for _, s := range services {
			if !strings.EqualFold(s.Service, name) {
				continue
			}
			in := catalog.Instance{Node: rec.Node, Service: s}
			for _, c := range checks {
				if c.ServiceID == "" || c.ServiceID == s.ID {
					in.Checks = append(in.Checks, c)
				}
			}
			instances = append(instances, in)
		}
	}
	if len(instances) == 0 {
		return "no"
	}
	return showInstances(instances)
}

func (m *model) node(name string) string {
	rec, ok := m.nodes()[strings.ToLower(name)]
	if !ok {
		return "no"
	}
	return rec.Node.Node + " " + rec.Node.ID + " " + rec.Node.Address + " " + fmt.Sprint(rec.Node.Meta)
}

func (m *model) owner(addr string) string {
	nodes := m.nodes()
	var owners []string
	for key, rec := range nodes {
		if rec.Node.Address == addr {
			owners = append(owners, "0 "+key)
		}
		for _, s := range rec.Services {
			if s.Address == addr {
				owners = append(owners, "1 "+strings.ToLower(s.Service))
			}
		}
	}
	if len(owners) == 0 {
		return "nobody"
	}
	return slices.Min(owners)
}

func showOwner(s *State, addr string) string {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return "nobody"
	}
	switch o, ok := s.AddressOwner(a); {
	case !ok:
		return "nobody"
	case o.Service == nil:
		return "0 " + strings.ToLower(o.Node.Node)
	default:
		return "1 " + strings.ToLower(o.Service.Service)
	}
}

func drawRecord(t *rapid.T, name string) Record {
	rec := Record{Node: &catalog.Node{
		ID: "id-" + strings.ToLower(name), Node: name,
		Address: rapid.SampledFrom(modelAddrs[1:]).Draw(t, "address"),
	}}
	for _, svc := range modelServices {
		if !rapid.Bool().Draw(t, "has "+svc) {
			continue
		}
		rec.Services = append(rec.Services, &catalog.Service{
			ID: svc, Service: svc,
			Port:              rapid.IntRange(1, 2).Draw(t, "port"),
			Address:           rapid.SampledFrom(modelAddrs).Draw(t, "service address"),
			Tags:              rapid.SampledFrom([][]string{nil, {"a"}, {"b"}}).Draw(t, "tags"),
			EnableTagOverride: rapid.Bool().Draw(t, "override"),
		})
	}
	for _, id := range []string{"x", "disk", catalog.SerfHealth} {
		if !rapid.Bool().Draw(t, "check "+id) {
			continue
		}
		c := &catalog.Check{CheckID: id, Status: rapid.SampledFrom([]string{catalog.Passing, catalog.Critical}).Draw(t, "status"),
			Output: rapid.SampledFrom([]string{"", "o"}).Draw(t, "output")}
		if id == "x" {
			c.ServiceID = "web"
		}
		rec.Checks = append(rec.Checks, c)
	}
	return rec
}

// cached is an answer and the counter it rests on, as the rules have it.
type cached struct {
	what    string
	counted func() bool
	content string
	now     func(*State) string
}

// cacheAll makes an entry of everything there is to ask.
func cacheAll(s *State) []cached {
	var all []cached
	add := func(what string, now func(*State) string, counter interface{ Load() uint64 }) {
		value := counter.Load()
		all = append(all, cached{what, func() bool { return counter.Load() == value }, now(s), now})
	}
	for _, name := range modelServices {
		add("service "+name, func(s *State) string { return showStanding(s, name) }, counterOf(s, name))
	}
	for _, name := range modelNodes {
		now := func(s *State) string { return showNode(s, name) }
		if _, c, known := s.Node(name); known == catalog.Present {
			add("node "+name, now, c)
		} else {
			add("no node "+name, now, s.Names())
		}
		add("ID of "+name, func(s *State) string {
			n, ok := s.NodeByIDPrefix("id-" + name)
			if !ok {
				return "no"
			}
			return showNode(s, n.Node)
		}, s.Any())
	}
	for _, addr := range modelAddrs {
		add("address "+addr, func(s *State) string { return showOwner(s, addr) }, s.Addresses())
		add("address by any "+addr, func(s *State) string { return showOwner(s, addr) }, s.Any())
	}
	return all
}

func TestModel_ViewIsWhatANaiveReadingGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agent := &agentDouble{}
		m := &model{catalog: make(map[string]Record), life: lives{}}
		v, err := New(Config{NodeName: "me", NodeID: "id-me", Local: agent, Liveness: m.life})
		if err != nil {
			t.Fatal(err)
		}
		v.applyUpdate(whole(1))
		index := uint64(1)
		var entries []cached
		t.Repeat(map[string]func(*rapid.T){
			"batch": func(t *rapid.T) {
				index++
				u := catalog.Update{Index: index, Reset: rapid.Bool().Draw(t, "reset"), Whole: true}
				if u.Reset {
					clear(m.catalog)
				}
				var nodes []Record
				for _, name := range modelNodes {
					switch rapid.IntRange(0, 3).Draw(t, name) {
					case 0:
						rec := drawRecord(t, name)
						nodes = append(nodes, rec)
						m.catalog[strings.ToLower(name)] = rec
					case 1:
						if !u.Reset {
							u.GoneNodes = append(u.GoneNodes, name)
						}
						delete(m.catalog, strings.ToLower(name))
					}
				}
				tell(&u, nodes)
				mustTake(t, v, u)
			},
			"agent": func(t *rapid.T) {
				m.own = drawRecord(t, "me")
				m.own.Checks = slices.DeleteFunc(m.own.Checks, func(c *catalog.Check) bool { return c.CheckID == catalog.SerfHealth })
				agent.set(m.own)
				v.OnLocalChange()
			},
			"liveness": func(t *rapid.T) {
				id := "id-" + strings.ToLower(rapid.SampledFrom(modelNodes).Draw(t, "node"))
				m.life[id] = rapid.SampledFrom([]catalog.Life{catalog.NeverSeen, catalog.Alive, catalog.Failed, catalog.Left}).Draw(t, "life")
				v.OnLifeChange(id)
			},
			"settings": func(*rapid.T) { v.BumpEpoch() },
			"": func(t *rapid.T) {
				s := v.Load()
				for _, name := range modelServices {
					if got, want := show(s, name), m.service(name); got != want {
						t.Fatalf("service %s:\n%s\nwant:\n%s", name, got, want)
					}
				}
				for _, name := range modelNodes {
					if got, want := showNode(s, name), m.node(name); got != want {
						t.Fatalf("node %s: %s, want %s", name, got, want)
					}
				}
				for _, addr := range modelAddrs[1:4] {
					if got, want := showOwner(s, addr), m.owner(addr); got != want {
						t.Fatalf("address %s: %s, want %s", addr, got, want)
					}
				}
				for _, e := range entries {
					if now := e.now(s); e.counted() && now != e.content {
						t.Fatalf("%s is served late: %s, want %s", e.what, e.content, now)
					}
				}
				entries = cacheAll(s)
			},
		})
	})
}
