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
	next *State

	services, nodes, ids, addrs *iradix.Txn

	// edits are the instances that nodes will have, by service key and node
	// key; no instances: none left. They are gathered first, so that a service
	// is rebuilt once however many of its nodes change.
	edits map[string]map[string][]catalog.Instance
	// moved are the service keys whose counters must move.
	moved map[string]bool

	bumps           map[*atomic.Uint64]struct{}
	names, addrsSet bool
}

func newDraft(s *State) *draft {
	next := *s
	next.superseded = make(chan struct{})
	return &draft{
		next:     &next,
		services: s.services.Txn(),
		nodes:    s.nodes.Txn(),
		ids:      s.ids.Txn(),
		addrs:    s.addrs.Txn(),
		edits:    make(map[string]map[string][]catalog.Instance),
		moved:    make(map[string]bool),
		bumps:    make(map[*atomic.Uint64]struct{}),
	}
}

// set makes rec what shows of a node; nil takes the node out.
func (d *draft) set(key string, rec *Record) {
	var old *nodeEntry
	if v, ok := d.nodes.Get([]byte(key)); ok {
		old = v.(*nodeEntry)
	}
	switch {
	case old == nil && rec == nil, old != nil && rec != nil && sameRecord(old.rec, rec):
		return
	case old == nil:
		d.nodes.Insert([]byte(key), &nodeEntry{rec: rec, counter: new(atomic.Uint64)})
		d.names = true
		d.edit(key, &Record{}, rec, true)
	case rec == nil:
		d.nodes.Delete([]byte(key))
		d.bump(old.counter)
		d.names = true
		d.edit(key, old.rec, &Record{}, true)
	default:
		moved := !nodeShowsSame(old.rec, rec)
		d.nodes.Insert([]byte(key), &nodeEntry{rec: rec, counter: old.counter})
		if moved {
			d.bump(old.counter)
		}
		d.edit(key, old.rec, rec, moved)
	}
}

// edit notes what a node's change from old to rec does to the services on it
// and to the indexes of IDs and addresses. nodeMoved says that the node itself
// shows differently, and with it every service on it.
func (d *draft) edit(key string, old, rec *Record, nodeMoved bool) {
	was, is := instancesOf(old), instancesOf(rec)
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
			d.moved[name] = true
		}
	}
	d.editID(key, old.Node, rec.Node)
	d.editAddrs(addrsOf(key, old), addrsOf(key, rec))
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
	if !d.next.base {
		d.next.base = true
		d.names = true
	}
}

// finish returns the next state and the counters to move after it has been
// published, each once.
func (d *draft) finish() (*State, []*atomic.Uint64) {
	for name, nodes := range d.edits {
		d.finishService(name, nodes)
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

// finishService makes a service's next entry.
func (d *draft) finishService(name string, nodes map[string][]catalog.Instance) {
	var old *serviceEntry
	if v, ok := d.services.Get([]byte(name)); ok {
		old = v.(*serviceEntry)
	}
	if old == nil {
		old = &serviceEntry{counter: new(atomic.Uint64)}
		d.names = true
	} else if d.moved[name] {
		d.bump(old.counter)
	}
	next := old.with(nodes)
	if len(next.instances) == 0 {
		d.services.Delete([]byte(name))
		d.names = true
		return
	}
	d.services.Insert([]byte(name), next)
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
		counter:   e.counter,
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
func addrsOf(key string, rec *Record) map[string]addrOwner {
	addrs := make(map[string]addrOwner)
	if rec.Node == nil {
		return addrs
	}
	if a, err := netip.ParseAddr(rec.Node.Address); err == nil {
		o := addrOwner{node: key}
		addrs[addrKey(a, o, "")] = o
	}
	for _, svc := range rec.Services {
		if svc.Address == "" {
			continue
		}
		if a, err := netip.ParseAddr(svc.Address); err == nil {
			o := addrOwner{node: key, serviceID: svc.ID}
			addrs[addrKey(a, o, nameKey(svc.Service))] = o
		}
	}
	return addrs
}
