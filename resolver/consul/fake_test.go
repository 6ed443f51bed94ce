package consul_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/catalog"
	"meibo/resolver/consul"
)

// fake is a small catalog with states and counters that keep the rules that
// consul.State asks for.
type fake struct {
	mu       sync.Mutex // guards the making of states
	services map[string]*fakeService
	nodes    map[string]*catalog.Node
	checks   map[string][]*catalog.Check // by node
	noBase   bool
	expects  bool
	notYet   map[string]bool
	older    map[string][]catalog.Instance
	// unconfirmed are "node/service ID" and "node/".
	unconfirmed map[string]bool
	wanted      map[string]int // how often Want was called

	any, names, addresses, epoch atomic.Uint64
	coming                       atomic.Uint64 // of names whose contents are still to come

	stale     atomic.Bool // not fresh
	confirmed time.Time
	dirty     atomic.Bool // something was registered and is not in the state
	state     atomic.Pointer[fakeState]
	// onCall runs at every call of a state or of State, when it is set.
	onCall func()
}

type fakeService struct {
	counter   *atomic.Uint64
	instances map[string]*catalog.Service // by node and ID
}

type fakeState struct {
	f        *fake
	services map[string]fakeEntry
	nodes    map[string]*catalog.Node
	counters map[string]*atomic.Uint64 // of nodes
	noBase   bool
	expects  bool
	notYet   map[string]bool
	older    map[string][]catalog.Instance
	ready    chan struct{}
}

type fakeEntry struct {
	instances []catalog.Instance
	counter   *atomic.Uint64
}

func newFake() *fake {
	f := &fake{
		services: make(map[string]*fakeService), nodes: make(map[string]*catalog.Node),
		checks: make(map[string][]*catalog.Check), notYet: make(map[string]bool),
		older: make(map[string][]catalog.Instance), wanted: make(map[string]int),
	}
	f.publish()
	return f
}

func (f *fake) call() {
	if f.onCall != nil {
		f.onCall()
	}
}

// State is the zone's.
func (f *fake) State() consul.State {
	f.call()
	return f.state.Load()
}

// Want is the zone's, and counts.
func (f *fake) Want(name string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted[name]++
	return f.state.Load().ready
}

// publish makes a state of what there is.
func (f *fake) publish() {
	s := &fakeState{
		f: f, services: make(map[string]fakeEntry), nodes: maps.Clone(f.nodes), noBase: f.noBase, expects: f.expects,
		notYet: maps.Clone(f.notYet), older: maps.Clone(f.older), ready: make(chan struct{}), counters: make(map[string]*atomic.Uint64),
	}
	old := f.state.Load()
	for key := range f.nodes {
		s.counters[key] = new(atomic.Uint64)
		if old != nil && old.counters[key] != nil {
			s.counters[key] = old.counters[key]
		}
	}
	for name, svc := range f.services {
		e := fakeEntry{counter: svc.counter}
		for _, key := range slices.Sorted(maps.Keys(svc.instances)) {
			e.instances = append(e.instances, f.instance(svc.instances[key]))
		}
		s.services[name] = e
	}
	f.state.Store(s)
	if old != nil {
		close(old.ready)
	}
}

func (f *fake) instance(svc *catalog.Service) catalog.Instance {
	node := strings.ToLower(svc.Node)
	in := catalog.Instance{Node: f.nodes[node], Service: svc}
	for _, c := range f.checks[node] {
		if c.ServiceID == "" || c.ServiceID == svc.ID {
			in.Checks = append(in.Checks, c)
		}
	}
	return in
}

// registration is a body of PUT /v1/catalog/register.
type registration struct {
	ID, Node, Address string
	TaggedAddresses   map[string]string
	NodeMeta          map[string]string
	Service           *catalog.Service
	Check             *catalog.Check
}

// Register takes a body of PUT /v1/catalog/register.
func (f *fake) Register(body string) error {
	var r registration
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.ToLower(r.Node)
	n := &catalog.Node{ID: r.ID, Node: r.Node, Address: r.Address, Datacenter: "dc1", TaggedAddresses: r.TaggedAddresses, Meta: r.NodeMeta}
	if old := f.nodes[key]; old != nil && r.NodeMeta == nil {
		n.Meta = old.Meta
	}
	f.nodes[key] = n
	if r.Check != nil {
		f.checks[key] = append(f.checks[key], r.Check)
	}
	if r.Service != nil {
		f.put(r.Service, r.Node)
	}
	f.dirty.Store(true)
	return nil
}

// settle publishes what was registered since the last time.
func (f *fake) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dirty.Swap(false) {
		f.publish()
		f.moveAll()
	}
}

func (f *fake) put(s *catalog.Service, node string) {
	s.Node = node
	if s.ID == "" {
		s.ID = s.Service
	}
	name := strings.ToLower(s.Service)
	if f.services[name] == nil {
		f.services[name] = &fakeService{counter: new(atomic.Uint64), instances: make(map[string]*catalog.Service)}
	}
	f.services[name].instances[strings.ToLower(node)+"\x00"+s.ID] = s
}

// moveAll moves every counter there is; too often is allowed.
func (f *fake) moveAll() {
	s := f.state.Load()
	for _, e := range s.services {
		e.counter.Add(1)
	}
	for _, c := range s.counters {
		c.Add(1)
	}
	f.coming.Add(1)
	f.names.Add(1)
	f.addresses.Add(1)
	f.any.Add(1)
}

func (s *fakeState) Service(name string) ([]catalog.Instance, *atomic.Uint64, catalog.Known) {
	s.f.call()
	e, ok := s.services[strings.ToLower(name)]
	if !ok && s.notYet[strings.ToLower(name)] {
		return nil, &s.f.coming, catalog.NotYet
	}
	if !ok {
		return nil, nil, s.absent(name)
	}
	return e.instances, e.counter, catalog.Present
}

func (s *fakeState) Node(name string) (*catalog.Node, *atomic.Uint64, catalog.Known) {
	s.f.call()
	n, ok := s.nodes[strings.ToLower(name)]
	if !ok {
		return nil, nil, s.absent(name)
	}
	return n, s.counters[strings.ToLower(name)], catalog.Present
}

func (s *fakeState) absent(string) catalog.Known {
	if s.noBase || s.expects {
		return catalog.NotYet
	}
	return catalog.Absent
}

func (s *fakeState) NodeByIDPrefix(prefix string) (found *catalog.Node, ok bool) {
	for _, n := range s.nodes {
		if strings.HasPrefix(n.ID, strings.ToLower(prefix)) {
			if found != nil {
				return nil, false
			}
			found = n
		}
	}
	return found, found != nil
}

func (s *fakeState) AddressOwner(addr netip.Addr) (catalog.Owner, bool) {
	s.f.call()
	for _, key := range slices.Sorted(maps.Keys(s.nodes)) {
		if a, err := netip.ParseAddr(s.nodes[key].Address); err == nil && a == addr {
			return catalog.Owner{Node: s.nodes[key]}, true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.services)) {
		for _, in := range s.services[key].instances {
			if a, err := netip.ParseAddr(in.Service.Address); err == nil && a == addr {
				return catalog.Owner{Node: in.Node, Service: in.Service}, true
			}
		}
	}
	return catalog.Owner{}, false
}

func (s *fakeState) Confirmed() time.Time { return s.f.confirmed }

func (s *fakeState) Older(name string) ([]catalog.Instance, bool) {
	in, ok := s.older[strings.ToLower(name)]
	return in, ok
}

func (s *fakeState) Unconfirmed(node, serviceID string) bool {
	return s.f.unconfirmed[node+"/"+serviceID]
}

func (s *fakeState) Any() *atomic.Uint64       { s.f.call(); return &s.f.any }
func (s *fakeState) Names() *atomic.Uint64     { s.f.call(); return &s.f.names }
func (s *fakeState) Addresses() *atomic.Uint64 { s.f.call(); return &s.f.addresses }
func (s *fakeState) Epoch() *atomic.Uint64     { s.f.call(); return &s.f.epoch }
func (s *fakeState) HasBase() bool             { return !s.noBase }
func (s *fakeState) Expecting() bool           { return s.expects }
func (s *fakeState) Fresh() bool               { return !s.f.stale.Load() }

// metric reads one counter of a zone.
func metric(t testing.TB, z *consul.Zone, name string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(z.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
