package view

import (
	"errors"
	"fmt"
	"slices"
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

	nodes    map[string]*nodeRecord // by node key
	names    set                    // service keys that exist
	complete set                    // service keys whose contents are here; unused when whole
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

// nodeRecord is what one history says of one node. It is never modified once it is
// in a replica.
type nodeRecord struct {
	node      *catalog.Node
	checks    []*catalog.Check // the node's own
	addresses []catalog.AddressOf
	parts     []part // by name
}

// part is what a node has of one service.
type part struct {
	name     string // service key
	services []*catalog.Service
	checks   []*catalog.Check
}

// origin says whence contents are that no server confirms, and from when.
type origin struct {
	from string
	at   time.Time // when a server last confirmed them; zero: unknown
}

func newReplica() *replica {
	return &replica{
		nodes: make(map[string]*nodeRecord), names: make(set), complete: make(set),
		tombstones: make(map[catalog.Tombstone]struct{}),
	}
}

// beginReplica returns the replica that a Reset begins.
func beginReplica(u *catalog.Update) *replica {
	h := newReplica()
	h.history, h.whole, h.vouched = u.History, u.Whole, true
	return h
}

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
		c.addNode(t.Node, h.nodes[t.Node])
	}
	return nil
}

func (h *replica) applyNodes(u *catalog.Update, c *changes) {
	for _, name := range u.GoneNodes {
		c.addNode(nameKey(name), h.nodes[nameKey(name)])
		delete(h.nodes, nameKey(name))
	}
	for i := range u.Nodes {
		n := &u.Nodes[i]
		key := nameKey(n.Node.Node)
		next := &nodeRecord{node: n.Node, checks: n.Checks, addresses: n.Addresses}
		if old := h.nodes[key]; old != nil {
			next.parts = old.parts
		}
		c.addNode(key, h.nodes[key])
		h.nodes[key] = next
	}
}

func (h *replica) applyPart(p *catalog.Part, c *changes) {
	key := nameKey(p.Node)
	old := h.nodes[key]
	if old == nil || len(p.Services) == 0 && old.part(nameKey(p.Service)) == nil {
		return // the node is no more, or never had it
	}
	c.addNode(key, old)
	h.nodes[key] = old.with(part{nameKey(p.Service), p.Services, p.Checks})
}

// applyComplete takes the named services from nodes that the update doesn't say
// have them.
func (h *replica) applyComplete(u *catalog.Update, c *changes) {
	for _, name := range u.Complete {
		key := nameKey(name)
		on := make(set)
		for i := range u.Parts {
			if nameKey(u.Parts[i].Service) == key {
				on.add(nameKey(u.Parts[i].Node))
			}
		}
		h.strip(key, on, c)
		h.complete.add(key)
		c.names.add(key)
	}
}

func (h *replica) applyGoneNames(u *catalog.Update, c *changes) {
	for _, name := range u.GoneNames {
		key := nameKey(name)
		h.strip(key, nil, c)
		delete(h.names, key)
		c.names.add(key)
	}
}

// strip takes a service from all nodes but those in on.
func (h *replica) strip(key string, on set, c *changes) {
	for node, old := range h.nodes {
		if !on.has(node) && old.part(key) != nil {
			c.addNode(node, old)
			h.nodes[node] = old.with(part{name: key})
		}
	}
}

// part returns what the node has of a service, nil if it has nothing.
func (h *nodeRecord) part(key string) *part {
	i, ok := h.find(key)
	if !ok {
		return nil
	}
	return &h.parts[i]
}

func (h *nodeRecord) find(key string) (int, bool) {
	return slices.BinarySearchFunc(h.parts, key, func(p part, key string) int { return strings.Compare(p.name, key) })
}

// with returns the node with one part replaced; one without services takes it
// out.
func (h *nodeRecord) with(p part) *nodeRecord {
	next := *h
	i, ok := h.find(p.name)
	end := i
	if ok {
		end++
	}
	if len(p.services) == 0 {
		next.parts = slices.Concat(h.parts[:i], h.parts[end:])
		return &next
	}
	next.parts = slices.Concat(h.parts[:i], []part{p}, h.parts[end:])
	return &next
}

// inherit takes over contents of an older replica of the same history that this one
// doesn't have: they are older ones from now on.
func (h *replica) inherit(old *replica) {
	if h.whole {
		return
	}
	for key, n := range h.nodes {
		was := old.nodes[key]
		if was == nil {
			continue
		}
		for _, p := range was.parts {
			if !h.complete.has(p.name) && h.names.has(p.name) {
				n = n.with(p)
			}
		}
		h.nodes[key] = n
	}
}
