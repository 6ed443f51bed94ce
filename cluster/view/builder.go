package view

import (
	"maps"
	"slices"
	"sync/atomic"

	"meibo/cluster/catalog"
)

// stateBuilder makes the next state from the newest one, and gathers the counters
// that must move once it is published. It touches only what changes.
type stateBuilder struct {
	view  *View
	first State // as next was at first
	next  *State

	services txn[*serviceEntry]
	nodes    txn[nodeEntry]
	ids      txn[*catalog.Node]
	addrs    txn[addrOwner]

	// touchedNodes and touchedNames are keys of what may show differently; all
	// stands for every one.
	touchedNodes, touchedNames set
	all                        bool

	// edits are the instances that nodes will have, by service key, in the order
	// of nodes. They are gathered first, so that a service is rebuilt once however
	// many of its nodes change.
	edits map[string][]edit
	// moved are the service keys whose counters must move.
	moved set

	bumps           map[*atomic.Uint64]struct{}
	names, addrsSet bool
}

// edit is what a node has of a service from now on; no instances: nothing.
type edit struct {
	node      *nodeRecord
	instances []instance
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
		services:     s.services.txn(),
		nodes:        s.nodes.txn(),
		ids:          s.ids.txn(),
		addrs:        s.addrs.txn(),
		touchedNodes: make(set),
		touchedNames: make(set),
		edits:        make(map[string][]edit),
		moved:        make(set),
		bumps:        make(map[*atomic.Uint64]struct{}),
	}
}

func (b *stateBuilder) touchNode(key string) { b.touchedNodes.add(key) }
func (b *stateBuilder) touchName(key string) { b.touchedNames.add(key) }
func (b *stateBuilder) touchAll()            { b.all = true }

// touchShown marks all that the state shows.
func (b *stateBuilder) touchShown() {
	for e := range b.nodes.all() {
		b.touchNode(e.key)
	}
	for e := range b.services.all() {
		b.touchName(e.key)
	}
}

// isChanged reports whether the next state differs from the one it began with, or
// may.
func (b *stateBuilder) isChanged() bool {
	return *b.next != b.first || len(b.touchedNodes) > 0 || len(b.touchedNames) > 0 ||
		len(b.bumps) > 0 || b.names || b.addrsSet
}

// setNode makes m what shows of a node; nil takes the node out. Nodes are to be set
// in the order of their keys.
func (b *stateBuilder) setNode(key string, m *nodeRecord) {
	old, shown := b.nodes.get(atEntry(key))
	switch {
	case !shown && m == nil:
	case shown && m != nil && old.isSame(m):
		if old.nodeRecord != m { // so that one of them goes
			b.nodes.put(nodeEntry{m, old.counter}, atEntry(key))
		}
	case !shown:
		b.nodes.put(nodeEntry{m, new(atomic.Uint64)}, atEntry(key))
		b.names = true
		b.edit(&nodeRecord{key: key}, m, true)
	case m == nil:
		b.nodes.remove(atEntry(key))
		b.bump(old.counter)
		b.names = true
		b.edit(old.nodeRecord, &nodeRecord{key: key}, true)
	default:
		// That something is unconfirmed is said with each answer.
		moved := !nodeShowsSame(old.nodeRecord, m) || !slices.Equal(old.unconfirmed(), m.unconfirmed())
		b.nodes.put(nodeEntry{m, old.counter}, atEntry(key))
		if moved {
			b.bump(old.counter)
		}
		b.edit(old.nodeRecord, m, moved)
	}
}

// edit notes what a node's change from old to m does to the services on it and
// to the indexes of IDs and addresses. A record without a node is of one that isn't
// there. nodeMoved says that the node itself shows differently, and with it every
// service on it.
func (b *stateBuilder) edit(old, m *nodeRecord, nodeMoved bool) {
	if len(old.unconfirmed()) > 0 {
		b.next.unconfirmed--
	}
	if len(m.unconfirmed()) > 0 {
		b.next.unconfirmed++
	}
	for name, was := range old.parts() {
		b.editPart(name, old, m, was, m.part(name), nodeMoved)
	}
	for name, is := range m.parts() {
		if len(old.part(name)) == 0 {
			b.editPart(name, old, m, nil, is, nodeMoved)
		}
	}
	if old.node != m.node {
		b.editID(old.node, m.node)
	}
	if old.node != m.node || old.more != m.more {
		b.editAddrs(ownersOf(old), ownersOf(m))
	}
}

func (b *stateBuilder) editPart(name string, old, m *nodeRecord, was, is []instance, nodeMoved bool) {
	if old.node == m.node && sameInstances(was, is) {
		return
	}
	b.edits[name] = append(b.edits[name], edit{m, is})
	if nodeMoved || !instancesShowSame(was, is) {
		b.moved.add(name)
	}
}

// editID keeps the index of node IDs. Either may be nil.
func (b *stateBuilder) editID(old, node *catalog.Node) {
	var was, is string
	if old != nil {
		was = nameKey(old.ID)
	}
	if node != nil {
		is = nameKey(node.ID)
	}
	// The ID may have passed to another node name in the same batch.
	n, ok := b.ids.get(atID(was))
	mine := ok && nameKey(n.Node) == nameKey(old.Node)
	if was == is {
		if mine {
			b.ids.put(node, atID(is))
		}
		return
	}
	b.names = true
	if mine {
		b.ids.remove(atID(was))
	}
	if is != "" {
		b.ids.put(node, atID(is))
	}
}

// editAddrs keeps the index of addresses. Both lists are in order.
func (b *stateBuilder) editAddrs(was, is []addrOwner) {
	for _, o := range was {
		if _, stays := slices.BinarySearchFunc(is, o, compareOwners); !stays {
			b.addrs.remove(atOwner(o))
			b.addrsSet = true
		}
	}
	for _, o := range is {
		b.addrs.put(o, atOwner(o))
		if _, had := slices.BinarySearchFunc(was, o, compareOwners); !had {
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
	s.services, s.nodes = b.services.commit(), b.nodes.commit()
	s.ids, s.addrs = b.ids.commit(), b.addrs.commit()
	return s, slices.Collect(maps.Keys(b.bumps))
}

// finishService makes a service's next entry.
func (b *stateBuilder) finishService(name string, edits []edit) {
	old, _ := b.services.get(atService(name))
	next := &serviceEntry{key: name}
	if old != nil {
		*next = *old
	} else {
		next.mark = new(mark)
	}
	if len(edits) > 0 {
		next.instances = edited(next.instances, edits)
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
		b.services.remove(atService(name))
		b.bump(&old.mark.counter)
		b.names = true
	case old == nil:
		b.services.put(next, atService(name))
		b.names = true
	case len(edits) > 0 || next.known != old.known || next.origin != old.origin:
		b.services.put(next, atService(name))
		if b.moved.has(name) || next.known != old.known {
			b.bump(&old.mark.counter)
		}
	}
}

// edited returns the instances with those of the edits' nodes replaced.
func edited(instances []catalog.Instance, edits []edit) []catalog.Instance {
	find := func(key string) (from, to int) {
		from, _ = slices.BinarySearchFunc(instances, key, func(in catalog.Instance, key string) int {
			return compareKey(in.Node.Node, key)
		})
		for to = from; to < len(instances) && nameKey(instances[to].Node.Node) == key; {
			to++
		}
		return from, to
	}
	size := len(instances)
	for _, e := range edits {
		from, to := find(e.node.key)
		size += len(e.instances) - (to - from)
	}
	if size == 0 {
		return nil
	}
	next := make([]catalog.Instance, 0, size)
	kept := 0 // how many were looked at
	for _, e := range edits {
		from, to := find(e.node.key)
		next = append(next, instances[kept:from]...)
		for _, in := range e.instances {
			next = append(next, catalog.Instance{Node: e.node.node, Service: in.service, Checks: in.checks})
		}
		kept = to
	}
	return append(next, instances[kept:]...)
}

// ownersOf returns who has the addresses of a node and its services, in order.
func ownersOf(m *nodeRecord) []addrOwner {
	if m.node == nil {
		return nil
	}
	owners := []addrOwner{{m.node, nil}}
	for i := range m.addresses() {
		owners = append(owners, addrOwner{m.node, &m.addresses()[i]})
	}
	owners = slices.DeleteFunc(owners, func(o addrOwner) bool { return !o.addr().IsValid() })
	slices.SortFunc(owners, compareOwners)
	return owners
}
