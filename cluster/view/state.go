package view

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync/atomic"

	iradix "github.com/hashicorp/go-immutable-radix"

	"meibo/cluster/catalog"
)

// Known says what is known of a name.
type Known uint8

const (
	// NotYet: the name exists, or may exist, and its contents are not here.
	NotYet Known = iota
	// Yes: the contents are here.
	Yes
	// No: the name does not exist.
	No
)

// Owner is what has an address: a node, or a service on it when Service is not
// nil.
type Owner struct {
	Node    *catalog.Node
	Service *catalog.Service
}

// State is one immutable state of the catalog as this host knows it. Its
// methods answer from memory, at once, and are safe for concurrent use. What
// they return is shared: copy to change.
//
// Successive states share all that did not change between them.
type State struct {
	services *iradix.Tree // lower-cased name -> *serviceEntry
	nodes    *iradix.Tree // lower-cased name -> *nodeEntry
	ids      *iradix.Tree // lower-cased node ID -> lower-cased node name
	addrs    *iradix.Tree // addrKey -> addrOwner

	counters *counters

	history catalog.History
	index   uint64
	base    bool
	fresh   bool

	baseArrived chan struct{} // closed when base becomes true; of the view
	superseded  chan struct{} // closed when a newer state has been published
}

// counters are the ones that belong to no single name. They live as long as the
// view; each state points at the same ones.
type counters struct {
	any, names, addresses, epoch atomic.Uint64
}

// serviceEntry is one service name's instances, in the order of node and
// service ID.
type serviceEntry struct {
	instances []catalog.Instance
	nodes     []string // the node key of each instance
	counter   *atomic.Uint64
}

// nodeEntry is one node as it shows: the own node merged, the dead one marked.
type nodeEntry struct {
	rec     *Record
	counter *atomic.Uint64
}

// addrOwner names who has an address.
type addrOwner struct {
	node      string // node key
	serviceID string // "" for the node itself
}

// nameKey is a name as the trees know it. DNS compares ASCII letters without
// regard to case (RFC 4343).
func nameKey(name string) string { return strings.ToLower(name) }

func newState(base chan struct{}) *State {
	return &State{
		services:    iradix.New(),
		nodes:       iradix.New(),
		ids:         iradix.New(),
		addrs:       iradix.New(),
		counters:    new(counters),
		baseArrived: base,
		superseded:  make(chan struct{}),
	}
}

// Service returns every instance of the named service, healthy or not, in the
// order of node name and service ID. Letter case does not matter. The counter
// is the name's own; it is nil unless known is Yes.
func (s *State) Service(name string) (instances []catalog.Instance, counter *atomic.Uint64, known Known) {
	e := s.service(nameKey(name))
	if e == nil {
		return nil, nil, s.absent()
	}
	return e.instances, e.counter, Yes
}

// Node returns the named node. Letter case does not matter. The counter is as
// for Service.
func (s *State) Node(name string) (node *catalog.Node, counter *atomic.Uint64, known Known) {
	e := s.node(nameKey(name))
	if e == nil {
		return nil, nil, s.absent()
	}
	return e.rec.Node, e.counter, Yes
}

// NodeByIDPrefix returns the one node whose ID begins with prefix, in any
// letter case; ok is false when there is none or more than one. What it returns
// depends on Any.
func (s *State) NodeByIDPrefix(prefix string) (node *catalog.Node, ok bool) {
	if prefix == "" {
		return nil, false
	}
	var found []string
	s.ids.Root().WalkPrefix([]byte(strings.ToLower(prefix)), func(_ []byte, v any) bool {
		found = append(found, v.(string))
		return len(found) > 1
	})
	if len(found) != 1 {
		return nil, false
	}
	return s.node(found[0]).rec.Node, true
}

// AddressOwner returns who has an address: the first node by name, else the
// first service by name that has it for an address of its own. What it returns
// depends on Addresses, and on Any for what the owner looks like.
func (s *State) AddressOwner(addr netip.Addr) (owner Owner, ok bool) {
	var first *addrOwner
	prefix := addr.As16()
	s.addrs.Root().WalkPrefix(prefix[:], func(_ []byte, v any) bool {
		o := v.(addrOwner)
		first = &o
		return true
	})
	if first == nil {
		return Owner{}, false
	}
	rec := s.node(first.node).rec
	owner = Owner{Node: rec.Node}
	if first.serviceID == "" {
		return owner, true
	}
	for _, svc := range rec.Services {
		if svc.ID == first.serviceID {
			owner.Service = svc
		}
	}
	return owner, owner.Service != nil
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

// Fresh reports whether a server that has a leader confirmed the view within
// the last StaleAfter.
func (s *State) Fresh() bool { return s.fresh }

// History is the life of the catalog that the state belongs to; zero before the
// base set arrived.
func (s *State) History() catalog.History { return s.history }

// Index is the index, base added, up to which changes of the catalog are in the
// state.
func (s *State) Index() uint64 { return s.index }

// Len returns how many service names, instances and nodes there are.
func (s *State) Len() (services, instances, nodes int) {
	s.services.Root().Walk(func(_ []byte, v any) bool {
		instances += len(v.(*serviceEntry).instances)
		return false
	})
	return s.services.Len(), instances, s.nodes.Len()
}

// Ready returns a channel that is closed when the name, if it was NotYet, is
// known.
func (s *State) Ready(string) <-chan struct{} { return s.baseArrived }

// Superseded returns a channel that is closed once a newer state has been
// published and its counters moved.
func (s *State) Superseded() <-chan struct{} { return s.superseded }

// absent is what is known of a name that is not in the trees.
func (s *State) absent() Known {
	if s.base {
		return No
	}
	return NotYet
}

func (s *State) service(key string) *serviceEntry {
	v, ok := s.services.Get([]byte(key))
	if !ok {
		return nil
	}
	return v.(*serviceEntry)
}

func (s *State) node(key string) *nodeEntry {
	v, ok := s.nodes.Get([]byte(key))
	if !ok {
		return nil
	}
	return v.(*nodeEntry)
}

// addrKey orders the owners of one address: nodes before services, then by
// name, so that the first one is always the same.
func addrKey(addr netip.Addr, o addrOwner, service string) string {
	a := addr.As16()
	key := string(a[:])
	if o.serviceID == "" {
		return key + "\x00" + o.node
	}
	key += "\x01" + service + "\x00"
	key = string(binary.BigEndian.AppendUint16([]byte(key), uint16(len(o.node))))
	return key + o.node + o.serviceID
}
