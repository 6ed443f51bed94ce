package view

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix"

	"meibo/cluster/catalog"
)

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
	instances []catalog.Instance
	nodes     []string // the node key of each instance
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
	*merged
	counter *atomic.Uint64
}

// addrOwner names who has an address.
type addrOwner struct {
	node      string // node key
	serviceID string // "" for the node itself
	service   string // the service's name
}

// nameKey is a name as the trees know it. DNS compares ASCII letters without
// regard to case (RFC 4343).
func nameKey(name string) string { return strings.ToLower(name) }

func newState(v *View) *State {
	return &State{
		services:   iradix.New(),
		nodes:      iradix.New(),
		ids:        iradix.New(),
		addrs:      iradix.New(),
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
	return e.Node, e.counter, catalog.Present
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
	return s.node(found[0]).Node, true
}

// AddressOwner returns who has an address: the first node by name, else the
// first service by name that has it for an address of its own. What it returns
// depends on Addresses, and on Any for what the owner looks like.
func (s *State) AddressOwner(addr netip.Addr) (owner catalog.Owner, ok bool) {
	var first *addrOwner
	prefix := addr.As16()
	s.addrs.Root().WalkPrefix(prefix[:], func(_ []byte, v any) bool {
		o := v.(addrOwner)
		first = &o
		return true
	})
	if first == nil {
		return catalog.Owner{}, false
	}
	rec := s.node(first.node).merged
	owner = catalog.Owner{Node: rec.Node}
	if first.serviceID == "" {
		return owner, true
	}
	for _, svc := range rec.Services {
		if svc.ID == first.serviceID {
			owner.Service = svc
			return owner, true
		}
	}
	// Its contents aren't here: all that is known is its name.
	owner.Service = &catalog.Service{Node: rec.Node.Node, ID: first.serviceID, Service: first.service, Address: addr.String()}
	return owner, true
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
	s.services.Root().Walk(func(_ []byte, v any) bool {
		instances += len(v.(*serviceEntry).instances)
		return false
	})
	return s.services.Len(), instances, s.nodes.Len()
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

// absent is what is known of a name that is not in the trees.
func (s *State) absent() catalog.Known {
	if s.base && !s.mergePending && !s.expecting {
		return catalog.Absent
	}
	return catalog.NotYet
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
func addrKey(addr netip.Addr, o addrOwner) string {
	a := addr.As16()
	key := string(a[:])
	if o.serviceID == "" {
		return key + "\x00" + o.node
	}
	key += "\x01" + nameKey(o.service) + "\x00"
	key = string(binary.BigEndian.AppendUint16([]byte(key), uint16(len(o.node))))
	return key + o.node + o.serviceID
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
	_, found := slices.BinarySearch(e.unconfirmed, serviceID)
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
	for e := range s.allNodes {
		if len(e.unconfirmed) == 0 {
			continue
		}
		u := UnconfirmedNode{Node: e.Node, Services: e.unconfirmed, Confirmed: at}
		if u.All = u.Services[0] == ""; u.All {
			u.Services = nil
			for _, svc := range e.Services {
				u.Services = append(u.Services, svc.ID)
			}
		}
		list = append(list, u)
	}
	return list
}
