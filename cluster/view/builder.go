package view

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	iradix "github.com/hashicorp/go-immutable-radix"

	"meibo/cluster/catalog"
)

// stateBuilder makes the next state from the newest one, and gathers the counters
// that must move once it is published. It touches only what changes.
type stateBuilder struct {
	view  *View
	first State // as next was at first
	next  *State

	services, nodes, ids, addrs *iradix.Txn

	// touchedNodes and touchedNames are keys of what may show differently; all
	// stands for every one.
	touchedNodes, touchedNames set
	all                        bool

	// edits are the instances that nodes will have, by service key and node
	// key; no instances: none left. They are gathered first, so that a service
	// is rebuilt once however many of its nodes change.
	edits map[string]map[string][]catalog.Instance
	// moved are the service keys whose counters must move.
	moved set

	bumps           map[*atomic.Uint64]struct{}
	names, addrsSet bool
}

// newBuilder returns a builder on the newest state. It is called with v.mu held, as
// are all its methods.
func (v *View) newBuilder() *stateBuilder {
	s := v.state.Load()
	next := *s
	next.superseded = make(chan struct{})
	return &stateBuilder{
		view:         v,
		first:        next,
		next:         &next,
		services:     s.services.Txn(),
		nodes:        s.nodes.Txn(),
		ids:          s.ids.Txn(),
		addrs:        s.addrs.Txn(),
		touchedNodes: make(set),
		touchedNames: make(set),
		edits:        make(map[string]map[string][]catalog.Instance),
		moved:        make(set),
		bumps:        make(map[*atomic.Uint64]struct{}),
	}
}

func (b *stateBuilder) touchNode(key string) { b.touchedNodes.add(key) }
func (b *stateBuilder) touchName(key string) { b.touchedNames.add(key) }
func (b *stateBuilder) touchAll()            { b.all = true }

// touchShown marks all that the state shows.
func (b *stateBuilder) touchShown() {
	b.nodes.Root().Walk(func(key []byte, _ any) bool {
		b.touchNode(string(key))
		return false
	})
	b.services.Root().Walk(func(key []byte, _ any) bool {
		b.touchName(string(key))
		return false
	})
}

// isChanged reports whether the next state differs from the one it began with, or
// may.
func (b *stateBuilder) isChanged() bool {
	return *b.next != b.first || len(b.touchedNodes) > 0 || len(b.touchedNames) > 0 ||
		len(b.bumps) > 0 || b.names || b.addrsSet
}

// setNode makes m what shows of a node; nil takes the node out.
func (b *stateBuilder) setNode(key string, m *merged) {
	var old *nodeEntry
	if v, ok := b.nodes.Get([]byte(key)); ok {
		old = v.(*nodeEntry)
	}
	switch {
	case old == nil && m == nil, old != nil && m != nil && old.isSame(m):
		return
	case old == nil:
		b.countUnconfirmed(&merged{}, m)
		b.nodes.Insert([]byte(key), &nodeEntry{merged: m, counter: new(atomic.Uint64)})
		b.names = true
		b.edit(key, &merged{}, m, true)
	case m == nil:
		b.countUnconfirmed(old.merged, &merged{})
		b.nodes.Delete([]byte(key))
		b.bump(old.counter)
		b.names = true
		b.edit(key, old.merged, &merged{}, true)
	default:
		b.countUnconfirmed(old.merged, m)
		// That something is unconfirmed is said with each answer.
		moved := !nodeShowsSame(&old.Record, &m.Record) || !slices.Equal(old.unconfirmed, m.unconfirmed)
		b.nodes.Insert([]byte(key), &nodeEntry{merged: m, counter: old.counter})
		if moved {
			b.bump(old.counter)
		}
		b.edit(key, old.merged, m, moved)
	}
}

func (b *stateBuilder) countUnconfirmed(was, is *merged) {
	if len(was.unconfirmed) > 0 {
		b.next.unconfirmed--
	}
	if len(is.unconfirmed) > 0 {
		b.next.unconfirmed++
	}
}

// edit notes what a node's change from old to m does to the services on it and
// to the indexes of IDs and addresses. nodeMoved says that the node itself shows
// differently, and with it every service on it.
func (b *stateBuilder) edit(key string, old, m *merged, nodeMoved bool) {
	was, is := instancesOf(&old.Record), instancesOf(&m.Record)
	for name := range was {
		if _, ok := is[name]; !ok {
			is[name] = nil
		}
	}
	for name, instances := range is {
		if sameInstances(was[name], instances) {
			continue
		}
		if b.edits[name] == nil {
			b.edits[name] = make(map[string][]catalog.Instance)
		}
		b.edits[name][key] = instances
		if nodeMoved || !instancesShowSame(was[name], instances) {
			b.moved.add(name)
		}
	}
	b.editID(key, old.Node, m.Node)
	b.editAddrs(addrsOf(key, old), addrsOf(key, m))
}

// editID keeps the index of node IDs.
func (b *stateBuilder) editID(key string, old, node *catalog.Node) {
	var was, is string
	if old != nil {
		was = strings.ToLower(old.ID)
	}
	if node != nil {
		is = strings.ToLower(node.ID)
	}
	if was == is {
		return
	}
	b.names = true
	// The ID may have passed to another node name in the same batch.
	if v, ok := b.ids.Get([]byte(was)); ok && v.(string) == key {
		b.ids.Delete([]byte(was))
	}
	if is != "" {
		b.ids.Insert([]byte(is), key)
	}
}

// editAddrs keeps the index of addresses.
func (b *stateBuilder) editAddrs(was, is map[string]addrOwner) {
	for k := range was {
		if _, ok := is[k]; !ok {
			b.addrs.Delete([]byte(k))
			b.addrsSet = true
		}
	}
	for k, o := range is {
		if _, ok := was[k]; !ok {
			b.addrs.Insert([]byte(k), o)
			b.addrsSet = true
		}
	}
}

func (b *stateBuilder) bump(c *atomic.Uint64) { b.bumps[c] = struct{}{} }

// bumpEpoch moves the epoch with this state.
func (b *stateBuilder) bumpEpoch() { b.bump(&b.next.counters.epoch) }

// setBase says that the set of names is known from now on.
func (b *stateBuilder) setBase() {
	b.next.origin = b.view.current.origin
	if !b.next.base {
		b.next.base = true
		b.names = true
	}
}

// finish returns the next state and the counters to move after it has been
// published, each once.
func (b *stateBuilder) finish() (*State, []*atomic.Uint64) {
	for name := range b.edits {
		b.touchName(name)
	}
	for name := range b.touchedNames {
		b.finishService(name, b.edits[name])
	}
	c := b.next.counters
	if b.names {
		b.bump(&c.names)
	}
	if b.addrsSet {
		b.bump(&c.addresses)
	}
	if _, epoch := b.bumps[&c.epoch]; len(b.bumps) > 1 || len(b.bumps) == 1 && !epoch {
		b.bump(&c.any)
	}
	s := b.next
	s.services, s.nodes = b.services.CommitOnly(), b.nodes.CommitOnly()
	s.ids, s.addrs = b.ids.CommitOnly(), b.addrs.CommitOnly()
	return s, slices.Collect(maps.Keys(b.bumps))
}

// finishService makes a service's next entry. nodes are the edits of its
// instances.
func (b *stateBuilder) finishService(name string, nodes map[string][]catalog.Instance) {
	var old *serviceEntry
	if v, ok := b.services.Get([]byte(name)); ok {
		old = v.(*serviceEntry)
	}
	next := &serviceEntry{}
	switch {
	case old == nil:
		next.mark = new(mark)
	case len(nodes) == 0:
		*next = *old
	}
	if len(nodes) > 0 {
		if old == nil {
			next = next.with(nodes)
		} else {
			next = old.with(nodes)
		}
	}
	if old != nil {
		next.mark = old.mark
	}
	var exists bool
	exists, next.known = b.view.existence(name, next)
	if next.known || !exists {
		delete(b.view.origins, name)
	}
	next.origin = b.view.originOf(name, next.known)
	if exists && next.known && (old == nil || !old.known) {
		b.next.filled++
	}
	switch {
	case !exists && old == nil:
	case !exists:
		b.services.Delete([]byte(name))
		b.bump(&old.mark.counter)
		b.names = true
	case old == nil:
		b.services.Insert([]byte(name), next)
		b.names = true
	case len(nodes) > 0 || next.known != old.known || next.origin != old.origin:
		b.services.Insert([]byte(name), next)
		if b.moved.has(name) || next.known != old.known {
			b.bump(&old.mark.counter)
		}
	}
}

// with returns the entry with the instances of the named nodes replaced.
func (e *serviceEntry) with(nodes map[string][]catalog.Instance) *serviceEntry {
	n := len(e.instances)
	for _, instances := range nodes {
		n += len(instances)
	}
	next := &serviceEntry{
		instances: make([]catalog.Instance, 0, n),
		nodes:     make([]string, 0, n),
		mark:      e.mark,
	}
	i := 0
	keep := func(before string, all bool) {
		for ; i < len(e.instances) && (all || e.nodes[i] <= before); i++ {
			if _, replaced := nodes[e.nodes[i]]; replaced {
				continue
			}
			next.instances = append(next.instances, e.instances[i])
			next.nodes = append(next.nodes, e.nodes[i])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		keep(key, false)
		for _, in := range nodes[key] {
			next.instances = append(next.instances, in)
			next.nodes = append(next.nodes, key)
		}
	}
	keep("", true)
	return next
}

// instancesOf returns a node's instances by service key, each in the order of
// service ID.
func instancesOf(rec *Record) map[string][]catalog.Instance {
	by := make(map[string][]catalog.Instance, len(rec.Services))
	if len(rec.Services) == 0 {
		return by
	}
	var ofNode []*catalog.Check
	ofService := make(map[string][]*catalog.Check)
	for _, c := range rec.Checks {
		if c.ServiceID == "" {
			ofNode = append(ofNode, c)
			continue
		}
		ofService[c.ServiceID] = append(ofService[c.ServiceID], c)
	}
	for _, svc := range rec.Services {
		checks := slices.Concat(ofNode, ofService[svc.ID])
		key := nameKey(svc.Service)
		by[key] = append(by[key], catalog.Instance{Node: rec.Node, Service: svc, Checks: checks})
	}
	for _, instances := range by {
		slices.SortFunc(instances, func(a, b catalog.Instance) int {
			return strings.Compare(a.Service.ID, b.Service.ID)
		})
	}
	return by
}

// addrsOf returns the addresses that a node and its services have.
func addrsOf(key string, m *merged) map[string]addrOwner {
	addrs := make(map[string]addrOwner)
	if m.Node == nil {
		return addrs
	}
	if a, err := netip.ParseAddr(m.Node.Address); err == nil {
		o := addrOwner{node: key}
		addrs[addrKey(a, o)] = o
	}
	for _, of := range m.addresses {
		if a, err := netip.ParseAddr(of.Address); err == nil {
			o := addrOwner{node: key, serviceID: of.ServiceID, service: of.Service}
			addrs[addrKey(a, o)] = o
		}
	}
	return addrs
}
