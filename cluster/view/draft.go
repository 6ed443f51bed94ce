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

// draft is the next state in the making, and the counters that must move once
// it is published. It touches only what changes.
type draft struct {
	view *View
	next *State

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

// newDraft begins a draft on the newest state. It is called with v.mu held, as
// are all its methods.
func (v *View) newDraft() *draft {
	s := v.state.Load()
	next := *s
	next.superseded = make(chan struct{})
	return &draft{
		view:         v,
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

func (d *draft) touchNode(key string) { d.touchedNodes.add(key) }
func (d *draft) touchName(key string) { d.touchedNames.add(key) }
func (d *draft) touchAll()            { d.all = true }

// touchShown marks all that the state shows.
func (d *draft) touchShown() {
	d.nodes.Root().Walk(func(key []byte, _ any) bool {
		d.touchNode(string(key))
		return false
	})
	d.services.Root().Walk(func(key []byte, _ any) bool {
		d.touchName(string(key))
		return false
	})
}

// isSame reports whether the draft holds nothing new over the state it began
// with.
func (d *draft) isSame(before *State) bool {
	return *d.next == *before && len(d.touchedNodes) == 0 && len(d.touchedNames) == 0 &&
		len(d.bumps) == 0 && !d.names && !d.addrsSet
}

// set makes m what shows of a node; nil takes the node out.
func (d *draft) set(key string, m *merged) {
	var old *nodeEntry
	if v, ok := d.nodes.Get([]byte(key)); ok {
		old = v.(*nodeEntry)
	}
	switch {
	case old == nil && m == nil, old != nil && m != nil && old.isSame(m):
		return
	case old == nil:
		d.countUnconfirmed(&merged{}, m)
		d.nodes.Insert([]byte(key), &nodeEntry{merged: m, counter: new(atomic.Uint64)})
		d.names = true
		d.edit(key, &merged{}, m, true)
	case m == nil:
		d.countUnconfirmed(old.merged, &merged{})
		d.nodes.Delete([]byte(key))
		d.bump(old.counter)
		d.names = true
		d.edit(key, old.merged, &merged{}, true)
	default:
		d.countUnconfirmed(old.merged, m)
		// That something is unconfirmed is said with each answer.
		moved := !nodeShowsSame(&old.Record, &m.Record) || !slices.Equal(old.unconfirmed, m.unconfirmed)
		d.nodes.Insert([]byte(key), &nodeEntry{merged: m, counter: old.counter})
		if moved {
			d.bump(old.counter)
		}
		d.edit(key, old.merged, m, moved)
	}
}

func (d *draft) countUnconfirmed(was, is *merged) {
	if len(was.unconfirmed) > 0 {
		d.next.unconfirmed--
	}
	if len(is.unconfirmed) > 0 {
		d.next.unconfirmed++
	}
}

// edit notes what a node's change from old to m does to the services on it and
// to the indexes of IDs and addresses. nodeMoved says that the node itself shows
// differently, and with it every service on it.
func (d *draft) edit(key string, old, m *merged, nodeMoved bool) {
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
		if d.edits[name] == nil {
			d.edits[name] = make(map[string][]catalog.Instance)
		}
		d.edits[name][key] = instances
		if nodeMoved || !instancesShowSame(was[name], instances) {
			d.moved.add(name)
		}
	}
	d.editID(key, old.Node, m.Node)
	d.editAddrs(addrsOf(key, old), addrsOf(key, m))
}

// editID keeps the index of node IDs.
func (d *draft) editID(key string, old, node *catalog.Node) {
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
	d.names = true
	// The ID may have passed to another node name in the same batch.
	if v, ok := d.ids.Get([]byte(was)); ok && v.(string) == key {
		d.ids.Delete([]byte(was))
	}
	if is != "" {
		d.ids.Insert([]byte(is), key)
	}
}

// editAddrs keeps the index of addresses.
func (d *draft) editAddrs(was, is map[string]addrOwner) {
	for k := range was {
		if _, ok := is[k]; !ok {
			d.addrs.Delete([]byte(k))
			d.addrsSet = true
		}
	}
	for k, o := range is {
		if _, ok := was[k]; !ok {
			d.addrs.Insert([]byte(k), o)
			d.addrsSet = true
		}
	}
}

func (d *draft) bump(c *atomic.Uint64) { d.bumps[c] = struct{}{} }

// bumpEpoch moves the epoch with this state.
func (d *draft) bumpEpoch() { d.bump(&d.next.counters.epoch) }

// setBase says that the set of names is known from now on.
func (d *draft) setBase() {
	d.next.origin = d.view.current.origin
	if !d.next.base {
		d.next.base = true
		d.names = true
	}
}

// finish returns the next state and the counters to move after it has been
// published, each once.
func (d *draft) finish() (*State, []*atomic.Uint64) {
	for name := range d.edits {
		d.touchName(name)
	}
	for name := range d.touchedNames {
		d.finishService(name, d.edits[name])
	}
	c := d.next.counters
	if d.names {
		d.bump(&c.names)
	}
	if d.addrsSet {
		d.bump(&c.addresses)
	}
	if _, epoch := d.bumps[&c.epoch]; len(d.bumps) > 1 || len(d.bumps) == 1 && !epoch {
		d.bump(&c.any)
	}
	s := d.next
	s.services, s.nodes = d.services.CommitOnly(), d.nodes.CommitOnly()
	s.ids, s.addrs = d.ids.CommitOnly(), d.addrs.CommitOnly()
	return s, slices.Collect(maps.Keys(d.bumps))
}

// finishService makes a service's next entry. nodes are the edits of its
// instances.
func (d *draft) finishService(name string, nodes map[string][]catalog.Instance) {
	var old *serviceEntry
	if v, ok := d.services.Get([]byte(name)); ok {
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
	exists, next.known = d.view.standing(name, next)
	if next.known || !exists {
		delete(d.view.origins, name)
	}
	next.origin = d.view.originOf(name, next.known)
	if exists && next.known && (old == nil || !old.known) {
		d.next.filled++
	}
	switch {
	case !exists && old == nil:
	case !exists:
		d.services.Delete([]byte(name))
		d.bump(&old.mark.counter)
		d.names = true
	case old == nil:
		d.services.Insert([]byte(name), next)
		d.names = true
	case len(nodes) > 0 || next.known != old.known || next.origin != old.origin:
		d.services.Insert([]byte(name), next)
		if d.moved.has(name) || next.known != old.known {
			d.bump(&old.mark.counter)
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
