package view

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// replica is what is known of one history: the base set whole, and contents of
// some services or of all.
type replica struct {
	history catalog.History
	index   uint64
	// whole says that contents are those of every service.
	whole bool
	// vouched says that a source has told all this, or goes on from it. Until
	// then it is from disk or from a neighbour: the base set counts, contents
	// are only older ones.
	vouched bool
	origin  *origin // of what isn't vouched for

	nodes    txn[*nodeRecord] // by key
	names    keys             // of services that exist
	complete keys             // of services whose contents are here; unused when whole
	// tombstones say what must not be remembered; their indexes are zero.
	tombstones map[catalog.Tombstone]struct{}
}

// set is a set of keys.
type set map[string]struct{}

func (s set) has(key string) bool {
	_, ok := s[key]
	return ok
}

func (s set) add(key string) { s[key] = struct{}{} }

// origin says whence contents are that no server confirms, and from when.
type origin struct {
	from string
	at   time.Time // when a server last confirmed them; zero: unknown
}

func newReplica() *replica {
	return &replica{
		tombstones: make(map[catalog.Tombstone]struct{}),
	}
}

// beginReplica returns the replica that a Reset begins.
func beginReplica(u *catalog.Update) *replica {
	h := newReplica()
	h.history, h.whole, h.vouched = u.History, u.Whole, true
	return h
}

// atNode is the place of the node with the key.
func atNode(key string) func(*nodeRecord) int {
	return func(n *nodeRecord) int { return strings.Compare(n.key, key) }
}

// node returns what is known of a node, nil for nothing.
func (h *replica) node(key string) *nodeRecord {
	n, _ := h.nodes.get(atNode(key))
	return n
}

func (h *replica) put(n *nodeRecord) { h.nodes.put(n, atNode(n.key)) }

// isHere reports whether the service's contents are here, vouched for.
func (h *replica) isHere(key string) bool { return h.vouched && h.isComplete(key) }

func (h *replica) isComplete(key string) bool { return h.whole || h.complete.has(key) }

// changes collects what an update may have changed: nodes as they were in the
// replica, nil for those that weren't, and names.
type changes struct {
	nodes map[string]*nodeRecord
	names set
}

func newChanges() *changes { return &changes{nodes: make(map[string]*nodeRecord), names: make(set)} }

func (c *changes) addNode(key string, was *nodeRecord) {
	if _, ok := c.nodes[key]; !ok {
		c.nodes[key] = was
	}
}

// errNotThatHistory ends a source that tells of another history without a
// Reset.
var errNotThatHistory = errors.New("the source changed histories without beginning anew")

// apply makes an update part of the replica and notes what it touches.
func (h *replica) apply(u *catalog.Update, c *changes) error {
	if u.History.ID != "" && u.History.ID != h.history.ID {
		return fmt.Errorf("%w: %s after %s", errNotThatHistory, u.History.ID, h.history.ID)
	}
	if u.Index != 0 && u.Index < h.index {
		return nil // it was told before
	}
	h.index = max(h.index, u.Index)
	h.applyNodes(u, c)
	for _, name := range u.Names {
		h.names.add(nameKey(name))
		c.names.add(nameKey(name))
	}
	for i := range u.Parts {
		h.applyPart(&u.Parts[i], c)
	}
	h.applyComplete(u, c)
	h.applyGoneNames(u, c)
	for _, t := range u.Tombstones {
		t.Index = 0
		t.Node = nameKey(t.Node)
		h.tombstones[t] = struct{}{}
		c.addNode(t.Node, h.node(t.Node))
	}
	// What grew is trimmed.
	h.nodes.commit()
	h.names.commit()
	h.complete.commit()
	return nil
}

func (h *replica) applyNodes(u *catalog.Update, c *changes) {
	for _, name := range u.GoneNodes {
		key := nameKey(name)
		c.addNode(key, h.node(key))
		h.nodes.remove(atNode(key))
	}
	for i := range u.Nodes {
		n := &u.Nodes[i]
		key := nameKey(n.Node.Node)
		next := newRecord(key, n.Node, nil, n.Checks, n.Addresses)
		old := h.node(key)
		if old != nil {
			next.instances = next.adopted(old.instances, old)
		}
		c.addNode(key, old)
		h.put(next)
	}
}

func (h *replica) applyPart(p *catalog.Part, c *changes) {
	old, name := h.node(nameKey(p.Node)), nameKey(p.Service)
	if old == nil || len(p.Services) == 0 && len(old.part(name)) == 0 {
		return // the node is no more, or never had it
	}
	c.addNode(old.key, old)
	h.put(old.with(name, old.instancesOf(p.Services, p.Checks)))
}

// applyComplete takes the named services from nodes that the update doesn't say
// have them.
func (h *replica) applyComplete(u *catalog.Update, c *changes) {
	if len(u.Complete) == 0 {
		return
	}
	on := make(map[string]set, len(u.Complete))
	for _, name := range u.Complete {
		key := nameKey(name)
		on[key] = make(set)
		h.complete.add(key)
		c.names.add(key)
	}
	for i := range u.Parts {
		if nodes := on[nameKey(u.Parts[i].Service)]; nodes != nil {
			nodes.add(nameKey(u.Parts[i].Node))
		}
	}
	h.strip(on, c)
}

func (h *replica) applyGoneNames(u *catalog.Update, c *changes) {
	if len(u.GoneNames) == 0 {
		return
	}
	on := make(map[string]set, len(u.GoneNames))
	for _, name := range u.GoneNames {
		key := nameKey(name)
		on[key] = nil
		h.names.drop(key)
		c.names.add(key)
	}
	h.strip(on, c)
}

// strip takes services from all nodes but those that keep them, in one pass: a host
// is told many services at once, of a large fleet.
func (h *replica) strip(keep map[string]set, c *changes) {
	for old := range h.nodes.all() {
		n := old
		for name := range old.parts() {
			if on, ok := keep[name]; ok && !on.has(old.key) {
				n = n.with(name, nil)
			}
		}
		if n != old {
			c.addNode(old.key, old)
			h.put(n)
		}
	}
}

// inherit takes over contents of an older replica of the same history that this one
// doesn't have: they are older ones from now on.
func (h *replica) inherit(old *replica) {
	if h.whole {
		return
	}
	for n := range h.nodes.all() {
		was := old.node(n.key)
		if was == nil {
			continue
		}
		for name, part := range was.parts() {
			if !h.complete.has(name) && h.names.has(name) {
				n = n.with(name, n.adopted(part, was))
			}
		}
		h.put(n)
	}
	h.nodes.commit()
}
