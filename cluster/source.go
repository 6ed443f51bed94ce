package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

// heartbeat is how often the source in this process confirms what it told: well
// within view.StaleAfter.
const heartbeat = time.Second

// errBeat ends a wait for changes.
var errBeat = errors.New("heartbeat")

// source feeds the view from the store of this process: all there is, asked for
// or not.
type source struct {
	store   *state.Store
	changes *state.Subscription
	// leads reports whether what the store says is the newest there is.
	leads func() bool
	// told says which services, in lower case, were told of each node.
	told map[string][]string
	// users counts the nodes that have a service.
	users map[string]int
}

func newSource(store *state.Store, leads func() bool) *source {
	return &source{store: store, changes: store.Subscribe(), leads: leads}
}

func (s *source) close() { s.changes.Close() }

// Subscribe and Unsubscribe implement view.Source: everything is told anyway.
func (s *source) Subscribe(...string) {}

// Unsubscribe implements view.Source.
func (s *source) Unsubscribe(...string) {}

// Next implements view.Source. A subscription begins with a resync, so the
// first update is a Reset.
func (s *source) Next(ctx context.Context) (catalog.Update, error) {
	wait, cancel := context.WithTimeoutCause(ctx, heartbeat, errBeat)
	defer cancel()
	c, err := s.changes.Next(wait)
	switch {
	case errors.Is(err, errBeat):
		c = state.Change{}
	case err != nil:
		return catalog.Update{}, err
	}
	return s.update(c), nil
}

// update reads what a change names. The store may be ahead of the change by
// then; what it is ahead by is told again with its own change, so the index is
// that of the change.
func (s *source) update(c state.Change) catalog.Update {
	r := s.store.Read()
	_, history := r.History(nil)
	u := catalog.Update{
		History: history, Whole: true, Confirmed: s.leads(),
		Reset: c.Resync || c.History,
	}
	if c.Index > 0 {
		u.Index = history.Base + c.Index
	}
	records, marked := c.Records, c.Marked
	if u.Reset {
		s.told, s.users = make(map[string][]string), make(map[string]int)
		records, marked = nil, nil
		_, nodes := r.Nodes(nil)
		for _, n := range nodes {
			records = append(records, strings.ToLower(n.Node))
		}
	}
	for _, name := range records {
		s.addNode(&u, r, name)
	}
	s.addTombstones(&u, r, marked)
	return u
}

// addNode adds all that the state says of a node.
func (s *source) addNode(u *catalog.Update, r *state.Read, name string) {
	_, n := r.Node(nil, name)
	if n == nil {
		u.GoneNodes = append(u.GoneNodes, name)
		s.setTold(u, name, nil)
		return
	}
	_, services := r.NodeServices(nil, name)
	_, checks := r.NodeChecks(nil, name)
	ns := catalog.NodeState{Node: n}
	of := make(map[string]string) // service IDs to names
	parts := make(map[string]*catalog.Part)
	for _, svc := range services {
		key := strings.ToLower(svc.Service)
		of[svc.ID] = key
		if parts[key] == nil {
			parts[key] = &catalog.Part{Node: n.Node, Service: key}
		}
		parts[key].Services = append(parts[key].Services, svc)
		if svc.Address != "" {
			ns.Addresses = append(ns.Addresses, catalog.AddressOf{Address: svc.Address, Service: svc.Service, ServiceID: svc.ID})
		}
	}
	for _, c := range checks {
		if c.ServiceID == "" {
			ns.Checks = append(ns.Checks, c)
			continue
		}
		if p := parts[of[c.ServiceID]]; p != nil {
			p.Checks = append(p.Checks, c)
		}
	}
	u.Nodes = append(u.Nodes, ns)
	for _, key := range s.setTold(u, name, slices.Sorted(maps.Keys(parts))) {
		u.Parts = append(u.Parts, catalog.Part{Node: n.Node, Service: key})
	}
	for _, p := range parts {
		u.Parts = append(u.Parts, *p)
	}
}

// setTold notes which services a node has, tells names that begin or cease to
// exist by that, and returns those that have left the node.
func (s *source) setTold(u *catalog.Update, node string, now []string) (left []string) {
	for _, key := range now {
		if slices.Contains(s.told[node], key) {
			continue
		}
		if s.users[key]++; s.users[key] == 1 {
			u.Names = append(u.Names, key)
			u.GoneNames = slices.DeleteFunc(u.GoneNames, func(gone string) bool { return gone == key })
		}
	}
	for _, key := range s.told[node] {
		if slices.Contains(now, key) {
			continue
		}
		left = append(left, key)
		if s.users[key]--; s.users[key] == 0 {
			delete(s.users, key)
			u.GoneNames = append(u.GoneNames, key)
			u.Names = slices.DeleteFunc(u.Names, func(begun string) bool { return begun == key })
		}
	}
	s.told[node] = now
	if len(now) == 0 {
		delete(s.told, node)
	}
	return left
}

// addTombstones adds those of the nodes named, or all in a Reset.
func (s *source) addTombstones(u *catalog.Update, r *state.Read, nodes []string) {
	if !u.Reset && len(nodes) == 0 {
		return
	}
	_, all := r.Tombstones(nil)
	for _, t := range all {
		if u.Reset || slices.Contains(nodes, strings.ToLower(t.Node)) {
			u.Tombstones = append(u.Tombstones, *t)
		}
	}
}
