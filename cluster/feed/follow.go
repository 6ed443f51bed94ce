package feed

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

// Each wake-up of a stream costs the server some 20 µs, so while changes come
// in a row they are told together: at most every pace, which leaves half of a
// processor for other things. A change by itself isn't held up.
const (
	pacePerStream = 40 * time.Microsecond
	minPace       = 2 * time.Millisecond
	maxPace       = 200 * time.Millisecond
)

// changes gathers what a store says has changed.
type changes struct {
	index    uint64 // Raft's
	nodes    map[string]bool
	services map[string]bool
	resync   bool
	tombs    bool
}

func newChanges() changes {
	return changes{nodes: make(map[string]bool), services: make(map[string]bool)}
}

func (c *changes) add(s state.Change) {
	c.index = s.Index
	c.resync = c.resync || s.Resync || s.History
	c.tombs = c.tombs || len(s.Marked) > 0
	for _, name := range s.Records {
		c.nodes[name] = true
	}
	for _, name := range slices.Concat(s.Services, s.Details) {
		c.services[name] = true
	}
}

// follow keeps the snapshot equal to the store until ctx ends.
func (s *Server) follow(ctx context.Context) error {
	sub := s.cfg.Store.Subscribe()
	defer sub.Close()
	for {
		c, r, err := s.next(ctx, sub)
		if err != nil {
			return err
		}
		s.wake(s.snapshot.follow(r, c, s.limits()))
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
}

// next returns changes and the state that has just those: not one more, which
// would tell half of a transaction.
func (s *Server) next(ctx context.Context, sub *state.Subscription) (changes, *state.Read, error) {
	all := newChanges()
	for {
		c, err := sub.Next(ctx)
		if err != nil {
			return all, nil, err
		}
		all.add(c)
		if r := s.cfg.Store.Read(); r.Applied() <= all.index {
			return all, r, nil
		} // else one more is committed, and is about to be told
	}
}

// pause holds up the next change for as long as the last one keeps the streams
// busy.
func (s *Server) pause(ctx context.Context) error {
	pace := min(max(minPace, time.Duration(s.streamCount())*pacePerStream), maxPace)
	timer := time.NewTimer(pace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// bounds are the limits that a snapshot keeps.
type bounds struct {
	gone       int
	wholeBelow int64
}

// follow makes the snapshot that of r and says whom it concerns. It is called
// from one goroutine, which alone changes the snapshot and so reads it unlocked.
func (p *snapshot) follow(r *state.Read, c changes, limit bounds) touched {
	_, history := r.History(nil)
	index := history.Base + r.Applied()
	if history.ID == p.history.ID && index < p.index {
		p.behind = true // nothing until it is past
		return touched{}
	}
	c.resync, p.behind = c.resync || p.behind, false
	t := p.entries
	anew := history.ID != p.history.ID || t == nil
	if anew {
		t = newEntries(index)
	}
	edits := t.editsFor(r, c, anew)
	var tombs []*catalog.Tombstone
	c.tombs = c.tombs || c.resync || anew
	if c.tombs {
		_, tombs = r.Tombstones(nil)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if !anew && index > p.index+1 {
		t.addSpan(span{start: p.index, end: index, all: c.resync, nodes: c.nodes, services: c.services})
	}
	p.history, p.index, p.entries = history, index, t
	to := t.apply(edits, index)
	if c.tombs {
		t.setTombstones(tombs, index, &to)
	}
	t.forget(limit.gone)
	whole := t.size < limit.wholeBelow || (p.whole && t.size <= 2*limit.wholeBelow)
	to.base = to.base || anew || whole != p.whole
	p.whole = whole
	return to
}

// editsFor compares what changed with what was told.
func (t *entries) editsFor(r *state.Read, c changes, anew bool) []edit {
	nodes, services := c.nodes, c.services
	if anew || c.resync {
		services = nil
		nodes = make(map[string]bool, len(t.nodes))
		for key := range t.nodes {
			nodes[key] = true
		}
		_, list := r.Nodes(nil)
		for _, n := range list {
			nodes[strings.ToLower(n.Node)] = true
		}
	}
	var edits []edit
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		edits = t.editsOf(r, key, services, edits)
	}
	for i := range edits {
		edits[i].next.encode()
	}
	return edits
}

// editsOf adds what differs of one node: of the parts those of the services, all if
// that is nil.
func (t *entries) editsOf(r *state.Read, key string, services map[string]bool, edits []edit) []edit {
	known := t.nodes[key]
	if known == nil {
		known = new(nodeEntries)
	}
	_, n := r.Node(nil, key)
	if n == nil || known.node == nil || known.node.label != n.Node {
		services = nil // each part says the node's name
	}
	now, parts := readNode(r, key, n, services)
	edits = editNode(key, known.node, now, edits)
	for name, e := range known.parts {
		if parts[name] == nil && !e.gone && (services == nil || services[name]) {
			gone := entry{kind: ofPart, gone: true, name: name, node: key, label: e.label}
			edits = append(edits, edit{next: gone})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		next := entry{kind: ofPart, name: name, node: key, label: p.Node, part: p}
		e := known.parts[name]
		switch {
		case e == nil || e.gone || !partShowsSame(e.part, p):
			edits = append(edits, edit{next: next})
		case !slices.Equal(e.part.Checks, p.Checks):
			edits = append(edits, edit{next: next, quiet: true})
		}
	}
	return edits
}

func editNode(key string, known *entry, now *catalog.NodeState, edits []edit) []edit {
	there := known != nil && !known.gone
	if now == nil {
		if there {
			edits = append(edits, edit{next: entry{kind: ofNode, gone: true, node: key, label: known.label}})
		}
		return edits
	}
	next := entry{kind: ofNode, node: key, label: now.Node.Node, state: now}
	switch {
	case !there || !stateShowsSame(known.state, now):
		return append(edits, edit{next: next})
	case !slices.Equal(known.state.Checks, now.Checks):
		return append(edits, edit{next: next, quiet: true})
	}
	return edits
}

// readNode returns what the store has of a node, and of it the parts of the services,
// all if that is nil; nil if it is not there.
func readNode(r *state.Read, key string, n *catalog.Node, only map[string]bool) (*catalog.NodeState, map[string]*catalog.Part) {
	if n == nil {
		return nil, nil
	}
	now := &catalog.NodeState{Node: n}
	parts := make(map[string]*catalog.Part)
	byID := make(map[string]*catalog.Part)
	_, services := r.NodeServices(nil, key)
	for _, svc := range services {
		if name := strings.ToLower(svc.Service); only == nil || only[name] {
			p := parts[name]
			if p == nil {
				p = &catalog.Part{Node: n.Node, Service: name}
				parts[name] = p
			}
			p.Services = append(p.Services, svc)
			byID[svc.ID] = p
		}
		if svc.Address != "" && svc.Address != n.Address {
			now.Addresses = append(now.Addresses, catalog.AddressOf{
				Address: svc.Address, Service: svc.Service, ServiceID: svc.ID,
			})
		}
	}
	_, checks := r.NodeChecks(nil, key)
	for _, c := range checks {
		if p := byID[c.ServiceID]; p != nil {
			p.Checks = append(p.Checks, c)
		} else if c.ServiceID == "" {
			now.Checks = append(now.Checks, c)
		}
	}
	return now, parts
}

// stateShowsSame and partShowsSame report whether hosts need not be told of a
// difference at once: if there is one, it is in the details of checks.
func stateShowsSame(a, b *catalog.NodeState) bool {
	return (a.Node == b.Node || reflect.DeepEqual(a.Node, b.Node)) &&
		slices.Equal(a.Addresses, b.Addresses) && catalog.ChecksShowSame(a.Checks, b.Checks)
}

func partShowsSame(a, b *catalog.Part) bool {
	return a.Node == b.Node && catalog.ChecksShowSame(a.Checks, b.Checks) &&
		slices.EqualFunc(a.Services, b.Services, func(a, b *catalog.Service) bool {
			return a == b || reflect.DeepEqual(a, b)
		})
}
