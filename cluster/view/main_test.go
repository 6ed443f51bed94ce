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
type lives map[string]Life

func (l lives) Life(id string) Life { return l[id] }

// scripted is a source that tells what the test sends.
type scripted chan Batch

func (s scripted) Next(ctx context.Context) (Batch, error) {
	select {
	case b, ok := <-s:
		if !ok {
			return Batch{}, fmt.Errorf("connection lost")
		}
		return b, nil
	case <-ctx.Done():
		return Batch{}, ctx.Err()
	}
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

func whole(index uint64, nodes ...Record) Batch {
	return Batch{History: catalog.History{ID: "h1"}, Index: index, Whole: true, Nodes: nodes}
}

func update(index uint64, nodes ...Record) Batch {
	return Batch{History: catalog.History{ID: "h1"}, Index: index, Nodes: nodes}
}

func gone(index uint64, names ...string) Batch {
	return Batch{History: catalog.History{ID: "h1"}, Index: index, Gone: names}
}

// show renders what an answer about a service can show.
func show(s *State, name string) string {
	instances, _, known := s.Service(name)
	switch known {
	case NotYet:
		return "not yet"
	case No:
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
	case NotYet:
		return "not yet"
	case No:
		return "no"
	}
	return n.Node + " " + n.ID + " " + n.Address + " " + fmt.Sprint(n.Meta)
}

// counterOf is the counter that an answer about the service rests on.
func counterOf(s *State, name string) *atomic.Uint64 {
	if _, c, known := s.Service(name); known == Yes {
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
		if _, c, known := s.Service(name); known == Yes {
			counters["service "+name] = c
		}
	}
	for _, name := range nodes {
		if _, c, known := s.Node(name); known == Yes {
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
