package view

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"meibo/cluster/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agentDouble is an agent whose records the test sets.
type agentDouble struct {
	mu  sync.Mutex
	rec Record
}

func (a *agentDouble) Own() Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rec
}

func (a *agentDouble) set(rec Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rec = rec
}

// lives is a Liveness whose word the test sets.
type lives map[string]catalog.Life

func (l lives) Life(id string) catalog.Life { return l[id] }

// scripted is a source that tells what the test sends, and notes what it is
// asked.
type scripted struct {
	updates chan catalog.Update
	mu      sync.Mutex
	asked   []string // "+name" and "-name"
}

func newScripted(buffer int) *scripted {
	return &scripted{updates: make(chan catalog.Update, buffer)}
}

func (s *scripted) Next(ctx context.Context) (catalog.Update, error) {
	select {
	case u, ok := <-s.updates:
		if !ok {
			return catalog.Update{}, fmt.Errorf("connection lost")
		}
		return u, nil
	case <-ctx.Done():
		return catalog.Update{}, ctx.Err()
	}
}

func (s *scripted) Subscribe(names ...string)   { s.note("+", names) }
func (s *scripted) Unsubscribe(names ...string) { s.note("-", names) }

func (s *scripted) note(sign string, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.asked = append(s.asked, sign+name)
	}
}

// take returns what was asked since the last call.
func (s *scripted) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := strings.Join(s.asked, " ")
	s.asked = nil
	return asked
}

// contextOf is a context that the test cancels by hand, as in bubbles, which end
// before their cleanup.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(t.Context()))
}

func mustNew(t testing.TB, cfg Config) *View {
	t.Helper()
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// node makes a record: node("n1", "10.0.0.1", service(...), check(...)).
func node(name, addr string, parts ...any) Record {
	rec := Record{Node: &catalog.Node{ID: "id-" + name, Node: name, Address: addr}}
	for _, p := range parts {
		switch p := p.(type) {
		case *catalog.Service:
			rec.Services = append(rec.Services, p)
		case *catalog.Check:
			rec.Checks = append(rec.Checks, p)
		}
	}
	return rec
}

func service(name string, port int, tags ...string) *catalog.Service {
	return &catalog.Service{ID: name, Service: name, Port: port, Tags: tags}
}

func check(id, status, serviceID string) *catalog.Check {
	return &catalog.Check{CheckID: id, Status: status, ServiceID: serviceID}
}

// vocabulary are the services that tests move about: an update that names a node
// says of each whether the node has it.
var vocabulary = []string{"web", "db", "mail", "consul", "old", "tagged", "vip1", "vip2", "aaa", "six", "named", "cache"}

// tell puts nodes into an update, with all that is on them.
func tell(u *catalog.Update, nodes []Record) {
	u.History.ID = "h1"
	for _, rec := range nodes {
		ns := catalog.NodeState{Node: rec.Node}
		parts := make(map[string]*catalog.Part)
		of := make(map[string]string)
		for _, s := range rec.Services {
			key := strings.ToLower(s.Service)
			if parts[key] == nil {
				parts[key] = &catalog.Part{Node: rec.Node.Node, Service: key}
				u.Names = append(u.Names, key)
			}
			of[s.ID] = key
			parts[key].Services = append(parts[key].Services, s)
			if s.Address != "" {
				ns.Addresses = append(ns.Addresses, catalog.AddressOf{Address: s.Address, Service: s.Service, ServiceID: s.ID})
			}
		}
		for _, c := range rec.Checks {
			if p := parts[of[c.ServiceID]]; p != nil {
				p.Checks = append(p.Checks, c)
			} else if c.ServiceID == "" {
				ns.Checks = append(ns.Checks, c)
			}
		}
		for _, key := range vocabulary {
			if parts[key] == nil && !u.Reset {
				u.Parts = append(u.Parts, catalog.Part{Node: rec.Node.Node, Service: key})
			}
		}
		for _, p := range parts {
			u.Parts = append(u.Parts, *p)
		}
		u.Nodes = append(u.Nodes, ns)
	}
}

func whole(index uint64, nodes ...Record) catalog.Update {
	u := catalog.Update{Index: index, Reset: true, Whole: true}
	tell(&u, nodes)
	return u
}

func update(index uint64, nodes ...Record) catalog.Update {
	u := catalog.Update{Index: index, Whole: true}
	tell(&u, nodes)
	return u
}

func gone(index uint64, names ...string) catalog.Update {
	return catalog.Update{History: catalog.History{ID: "h1"}, Index: index, GoneNodes: names}
}

// inHistory is the update as another history tells it.
func inHistory(id string, u catalog.Update) catalog.Update {
	u.History.ID = id
	return u
}

func confirmed(u catalog.Update) catalog.Update {
	u.Confirmed = true
	return u
}

// mustTake has v take updates as from a source.
func mustTake(t interface {
	Helper()
	Fatal(...any)
}, v *View, updates ...catalog.Update) {
	t.Helper()
	for _, u := range updates {
		if err := v.applyUpdate(u); err != nil {
			t.Fatal(err)
		}
	}
}

// show renders what an answer about a service can show.
func show(s *State, name string) string {
	instances, _, known := s.Service(name)
	switch known {
	case catalog.NotYet:
		return "not yet"
	case catalog.Absent:
		return "no"
	}
	return showInstances(instances)
}

func showInstances(instances []catalog.Instance) string {
	var lines []string
	for _, in := range instances {
		var checks []string
		for _, c := range in.Checks {
			checks = append(checks, c.CheckID+"="+c.Status)
		}
		lines = append(lines, fmt.Sprintf("%s@%s %s %s:%d %v %s", in.Node.Node, in.Node.Address, in.Service.ID,
			in.Service.Address, in.Service.Port, in.Service.Tags, strings.Join(checks, ",")))
	}
	return strings.Join(lines, "\n")
}

func showNode(s *State, name string) string {
	n, _, known := s.Node(name)
	switch known {
	case catalog.NotYet:
		return "not yet"
	case catalog.Absent:
		return "no"
	}
	return n.Node + " " + n.ID + " " + n.Address + " " + fmt.Sprint(n.Meta)
}

// counterOf is the counter that an answer about the service rests on.
func counterOf(s *State, name string) *atomic.Uint64 {
	if _, c, _ := s.Service(name); c != nil {
		return c
	}
	return s.Names()
}

// marks are values of counters, to see which ones a change moved.
type marks map[string]uint64

func markAll(s *State, services, nodes []string) (marks, map[string]*atomic.Uint64) {
	counters := map[string]*atomic.Uint64{
		"any": s.Any(), "names": s.Names(), "addresses": s.Addresses(), "epoch": s.Epoch(),
	}
	for _, name := range services {
		if _, c, _ := s.Service(name); c != nil {
			counters["service "+name] = c
		}
	}
	for _, name := range nodes {
		if _, c, known := s.Node(name); known == catalog.Present {
			counters["node "+name] = c
		}
	}
	m := make(marks)
	for k, c := range counters {
		m[k] = c.Load()
	}
	return m, counters
}

// moved runs change and returns, sorted, the counters that moved, each with by
// how much when that isn't one.
func moved(v *View, change func(), services, nodes []string) []string {
	before, counters := markAll(v.Load(), services, nodes)
	change()
	var names []string
	for k, c := range counters {
		switch by := c.Load() - before[k]; by {
		case 0:
		case 1:
			names = append(names, k)
		default:
			names = append(names, fmt.Sprintf("%s by %d", k, by))
		}
	}
	slices.Sort(names)
	return names
}
