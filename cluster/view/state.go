package view

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"meibo/cluster/catalog"
)

// State is one immutable state of the catalog as this host knows it. Its
// methods answer from memory, at once, and are safe for concurrent use. What
// they return is shared: copy to change.
//
// Successive states share all that did not change between them.
type State struct {
	services *table[*serviceEntry] // by key
	nodes    *table[nodeEntry]     // by key
	ids      *table[*catalog.Node] // by ID, those that have one
	addrs    *table[addrOwner]

	counters *counters

	view *View

	history catalog.History
	index   uint64
	base    bool
	origin  *origin // of the base set, while no server vouches for it
	fresh   bool
	// mergePending says that names may exist that nobody has told this history
	// yet, and that no earlier view is there to know them by.
	mergePending bool
	// expecting says that there is a base set, and that others who may know more
	// haven't been heard yet.
	expecting bool
	// unconfirmed is how many nodes have something that only earlier histories
	// know.
	unconfirmed int
	remembered  *origin // of what they know
	// filled grows whenever the contents of a service come to be known.
	filled uint64

	superseded chan struct{} // closed when a newer state has been published
}

// counters are the ones that belong to no single name. They live as long as the
// view; each state points at the same ones.
type counters struct {
	any, names, addresses, epoch atomic.Uint64
}

// serviceEntry is one service name: its instances, in the order of node and
// service ID.
type serviceEntry struct {
	key       string
	instances []catalog.Instance
	// known says that the instances are the contents; else the name exists and
	// they are older ones, or none.
	known  bool
	origin *origin // of older ones; nil when known
	mark   *mark
}

// mark is what an entry and its successors have in common.
type mark struct {
	counter atomic.Uint64
	used    atomic.Bool // asked for since it was last cleared
}

// use notes that the name was asked for.
func (m *mark) use() {
	if !m.used.Load() {
		m.used.Store(true)
	}
}

// nodeEntry is one node as it shows: the own node merged, the dead one marked.
type nodeEntry struct {
	*nodeRecord
	counter *atomic.Uint64
}

// addrOwner is who has an address.
type addrOwner struct {
	node *catalog.Node
	of   *catalog.AddressOf // nil: the node itself
}

// addr returns the address, which is read again each time: that takes 20 ns, and as
// much memory as all the rest of the index to avoid. It is zero if it isn't an IP
// address.
func (o addrOwner) addr() netip.Addr {
	s := o.node.Address
	if o.of != nil {
		s = o.of.Address
	}
	a, _ := netip.ParseAddr(s)
	return plain(a)
}

// plain is an address in the form in which it is compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// compareOwners puts owners in the order of their addresses, and those of one address
// so that the first one is always the same: nodes before services, then by name.
func compareOwners(a, b addrOwner) int {
	if c := a.addr().Compare(b.addr()); c != 0 {
		return c
	}
	switch {
	case a.of != nil && b.of != nil:
		return cmp.Or(strings.Compare(nameKey(a.of.Service), nameKey(b.of.Service)),
			strings.Compare(nameKey(a.node.Node), nameKey(b.node.Node)), strings.Compare(a.of.ServiceID, b.of.ServiceID))
	case a.of != nil:
		return 1
	case b.of != nil:
		return -1
	}
	return strings.Compare(nameKey(a.node.Node), nameKey(b.node.Node))
}

// The places of items in the tables.
func atService(key string) func(*serviceEntry) int {
	return func(e *serviceEntry) int { return strings.Compare(e.key, key) }
}

func atEntry(key string) func(nodeEntry) int {
	return func(e nodeEntry) int { return strings.Compare(e.key, key) }
}

func atID(id string) func(*catalog.Node) int {
	return func(n *catalog.Node) int { return compareKey(n.ID, id) }
}

func atOwner(o addrOwner) func(addrOwner) int {
	return func(a addrOwner) int { return compareOwners(a, o) }
}

// nodeWithID returns the key of the node with the ID, in any letter case.
func nodeWithID(ids *table[*catalog.Node], id string) (key string, ok bool) {
	n, ok := ids.get(atID(nameKey(id)))
	if !ok {
		return "", false
	}
	return nameKey(n.Node), true
}

// nameKey is a name as the tables know it. DNS compares ASCII letters without
// regard to case (RFC 4343).
func nameKey(name string) string { return strings.ToLower(name) }

// compareKey compares the key of a name with another, without making it.
func compareKey(name, key string) int {
	for i := range min(len(name), len(key)) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return strings.Compare(nameKey(name), key)
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != key[i] {
			return cmp.Compare(c, key[i])
		}
	}
	return cmp.Compare(len(name), len(key))
}

func newState(v *View) *State {
	return &State{
		services:   new(table[*serviceEntry]),
		nodes:      new(table[nodeEntry]),
		ids:        new(table[*catalog.Node]),
		addrs:      new(table[addrOwner]),
		counters:   new(counters),
		view:       v,
		superseded: make(chan struct{}),
	}
}

// Service returns every instance of the named service, healthy or not, in the
// order of node name and service ID. Letter case does not matter. The counter
// is the name's own; it is nil when no such name is in the base set: the answer
// then rests on Names. Being asked for keeps a subscription alive.
func (s *State) Service(name string) (instances []catalog.Instance, counter *atomic.Uint64, known catalog.Known) {
	e := s.service(nameKey(name))
	if e == nil {
		return nil, nil, s.absent()
	}
	e.mark.use()
	if !e.known {
		return nil, &e.mark.counter, catalog.NotYet
	}
	return e.instances, &e.mark.counter, catalog.Present
}

// Older returns what is known of a service that is NotYet from before: from
// disk, from a neighbour, or from a subscription that ended. No server confirms
// it (VIEWS rule 11). An answer from it rests on the counter that Service
// returns. What a catalog that has only begun has of a service is not from
// before: some instances may be missing (rule 18).
func (s *State) Older(name string) (instances []catalog.Instance, ok bool) {
	e := s.service(nameKey(name))
	begun := s.expecting && s.mergePending && s.origin == nil
	if e == nil || e.known || len(e.instances) == 0 || begun {
		return nil, false
	}
	return e.instances, true
}

// Node returns the named node. Letter case does not matter. The counter is as
// for Service.
func (s *State) Node(name string) (node *catalog.Node, counter *atomic.Uint64, known catalog.Known) {
	e := s.node(nameKey(name))
	if e == nil {
		return nil, nil, s.absent()
	}
	return e.node, e.counter, catalog.Present
}

// NodeByIDPrefix returns the one node whose ID begins with prefix, in any
// letter case; ok is false when there is none or more than one. What it returns
// depends on Any.
func (s *State) NodeByIDPrefix(prefix string) (node *catalog.Node, ok bool) {
	if prefix == "" {
		return nil, false
	}
	prefix = nameKey(prefix)
	for n := range s.ids.from(atID(prefix)) {
		switch {
		case !strings.HasPrefix(nameKey(n.ID), prefix):
			return node, node != nil
		case node != nil:
			return nil, false
		}
		node = n
	}
	return node, node != nil
}

// AddressOwner returns who has an address: the first node by name, else the
// first service by name that has it for an address of its own. What it returns
// depends on Addresses, and on Any for what the owner looks like.
func (s *State) AddressOwner(addr netip.Addr) (owner catalog.Owner, ok bool) {
	addr = plain(addr)
	for o := range s.addrs.from(func(o addrOwner) int { return cmp.Or(o.addr().Compare(addr), 1) }) {
		if o.addr() != addr {
			break
		}
		return s.owner(o), true
	}
	return catalog.Owner{}, false
}

func (s *State) owner(o addrOwner) catalog.Owner {
	if o.of == nil {
		return catalog.Owner{Node: o.node}
	}
	e := s.node(nameKey(o.node.Node))
	if svc := e.service(o.of.ServiceID); svc != nil {
		return catalog.Owner{Node: e.node, Service: svc}
	}
	// Its contents aren't here: all that is known is its name.
	return catalog.Owner{Node: e.node, Service: &catalog.Service{
		Node: e.node.Node, ID: o.of.ServiceID, Service: o.of.Service, Address: o.of.Address,
	}}
}

// Any is moved by every change of the catalog that can show in an answer.
func (s *State) Any() *atomic.Uint64 { return &s.counters.any }

// Names is moved when the name of a service or node, or a node's ID, begins or
// ceases to exist, and when the base set first arrives. An answer that denies a
// name holds it.
func (s *State) Names() *atomic.Uint64 { return &s.counters.names }

// Addresses is moved when an address gets, loses or changes its owner.
func (s *State) Addresses() *atomic.Uint64 { return &s.counters.addresses }

// Epoch is moved by configuration and by the view turning stale or fresh.
func (s *State) Epoch() *atomic.Uint64 { return &s.counters.epoch }

// HasBase reports whether the set of names that exist has ever been learned.
// Until then nothing may be denied.
func (s *State) HasBase() bool { return s.base }

// Expecting reports whether what shows may lack what others know, who are about
// to be heard: the first moments of a host that has a base set. Names moves when
// that ends.
func (s *State) Expecting() bool { return s.expecting }

// Fresh reports whether a server that has a leader confirmed the view within
// the last StaleAfter.
func (s *State) Fresh() bool { return s.fresh }

// Confirmed is the view's, and goes on while the state stays the same.
func (s *State) Confirmed() time.Time { return s.view.Confirmed() }

// History is the life of the catalog that the state belongs to; zero before the
// base set arrived.
func (s *State) History() catalog.History { return s.history }

// Index is the index, base added, up to which changes of the catalog are in the
// state.
func (s *State) Index() uint64 { return s.index }

// Len returns how many service names, instances and nodes there are.
func (s *State) Len() (services, instances, nodes int) {
	for e := range s.services.all() {
		instances += len(e.instances)
	}
	return s.services.len, instances, s.nodes.len
}

// Ready is View.Want; for no name, the channel is closed when the base set first
// arrives.
func (s *State) Ready(name string) <-chan struct{} {
	if name == "" {
		return s.view.base
	}
	return s.view.Want(name)
}

// Superseded returns a channel that is closed once a newer state has been
// published and its counters moved.
func (s *State) Superseded() <-chan struct{} { return s.superseded }

// absent is what is known of a name that is not in the tables.
func (s *State) absent() catalog.Known {
	if s.base && !s.mergePending && !s.expecting {
		return catalog.Absent
	}
	return catalog.NotYet
}

func (s *State) service(key string) *serviceEntry {
	e, _ := s.services.get(atService(key))
	return e
}

func (s *State) node(key string) *nodeEntry {
	c, i, ok := s.nodes.find(atEntry(key))
	if !ok {
		return nil
	}
	return &s.nodes.chunks[c].items[i]
}

// Unconfirmed reports whether only an earlier history, a file or a neighbour
// knows of a service, by its ID, on a node; or of the node itself, for no ID.
func (s *State) Unconfirmed(node, serviceID string) bool {
	if s.unconfirmed == 0 {
		return false
	}
	e := s.node(nameKey(node))
	if e == nil {
		return false
	}
	_, found := slices.BinarySearch(e.unconfirmed(), serviceID)
	return found
}

// UnconfirmedNode is what only earlier histories, a file or a neighbour say of a node.
type UnconfirmedNode struct {
	Node *catalog.Node
	// All says that it is the node itself and all on it; else Services are the
	// IDs of those services, in order.
	All      bool
	Services []string
	// Confirmed is when a server that has a leader last confirmed it; the zero
	// time: nobody knows.
	Confirmed time.Time
}

// AllUnconfirmed returns what is Unconfirmed, by node.
func (s *State) AllUnconfirmed() []UnconfirmedNode {
	list := make([]UnconfirmedNode, 0, s.unconfirmed)
	if s.unconfirmed == 0 {
		return list
	}
	var at time.Time
	if s.remembered != nil {
		at = s.remembered.at
	}
	for e := range s.nodes.all() {
		if len(e.unconfirmed()) == 0 {
			continue
		}
		u := UnconfirmedNode{Node: e.node, Services: e.unconfirmed(), Confirmed: at}
		if u.All = u.Services[0] == ""; u.All {
			u.Services = nil
			for _, svc := range e.services() {
				u.Services = append(u.Services, svc.ID)
			}
		}
		list = append(list, u)
	}
	return list
}
