package view

import (
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix"

	"meibo/cluster/catalog"
)

// What earlier histories said of a node, or a file or a neighbour, is remembered
// beside what the present one says until the node has told this history all it
// has (VIEWS rules 16 and 17).

// remember keeps what a history said that ends now.
func (v *View) remember(old *replica) {
	for key, n := range old.nodes {
		v.remembered[key] = overlay(n, v.remembered[key])
	}
	for name := range old.names {
		if !old.isComplete(name) {
			v.missed.add(name)
		}
	}
}

// overlay returns what two accounts of a node say together; where both speak of
// one service or check, by ID, it is the upper's word. Either may be nil.
func overlay(upper, lower *nodeRecord) *nodeRecord {
	switch {
	case upper == nil:
		return lower
	case lower == nil:
		return upper
	}
	ids, checks := upper.serviceIDs(), upper.checkIDs()
	merged := *upper
	merged.checks = appendChecks(upper.checks, lower.checks, checks)
	merged.addresses = slices.Clone(upper.addresses)
	for _, a := range lower.addresses {
		if !ids.has(a.ServiceID) && !slices.ContainsFunc(upper.addresses, func(b catalog.AddressOf) bool { return a.ServiceID == b.ServiceID }) {
			merged.addresses = append(merged.addresses, a)
		}
	}
	for _, p := range lower.parts {
		var mine part
		if m := merged.part(p.name); m != nil {
			mine = *m
		}
		mine.name = p.name
		mine.services = slices.Clone(mine.services)
		for _, s := range p.services {
			if !ids.has(s.ID) {
				mine.services = append(mine.services, s)
			}
		}
		mine.checks = appendChecks(mine.checks, p.checks, checks)
		if m := (&merged).with(mine); len(mine.services) > 0 {
			merged = *m
		}
	}
	return &merged
}

func appendChecks(upper, lower []*catalog.Check, known set) []*catalog.Check {
	checks := upper
	for _, c := range lower {
		if !known.has(c.CheckID) {
			checks = append(slices.Clip(checks), c)
		}
	}
	return checks
}

func (h *nodeRecord) serviceIDs() set {
	ids := make(set)
	for _, p := range h.parts {
		for _, s := range p.services {
			ids.add(s.ID)
		}
	}
	return ids
}

func (h *nodeRecord) checkIDs() set {
	ids := make(set)
	for _, c := range h.checks {
		ids.add(c.CheckID)
	}
	for _, p := range h.parts {
		for _, c := range p.checks {
			ids.add(c.CheckID)
		}
	}
	return ids
}

// without returns the node without services and checks of those IDs; a service
// takes its checks along.
func (h *nodeRecord) without(services, checks set) *nodeRecord {
	goneCheck := func(c *catalog.Check) bool { return checks.has(c.CheckID) || services.has(c.ServiceID) }
	next := &nodeRecord{node: h.node}
	next.checks = slices.DeleteFunc(slices.Clone(h.checks), goneCheck)
	next.addresses = slices.DeleteFunc(slices.Clone(h.addresses), func(a catalog.AddressOf) bool { return services.has(a.ServiceID) })
	for _, p := range h.parts {
		p.services = slices.DeleteFunc(slices.Clone(p.services), func(s *catalog.Service) bool { return services.has(s.ID) })
		p.checks = slices.DeleteFunc(slices.Clone(p.checks), goneCheck)
		if len(p.services) > 0 {
			next.parts = append(next.parts, p)
		}
	}
	return next
}

// forgetRemoved forgets what the history knew of a node and has removed since:
// it was named, so nobody remembers it better. Nil means that the node was, or
// is, not there.
func (v *View) forgetRemoved(key string, was, is *nodeRecord) {
	rem := v.remembered[key]
	switch {
	case rem == nil || was == nil || was == is:
		return
	case is == nil:
		delete(v.remembered, key)
		return
	}
	services, checks := missing(was.serviceIDs(), is.serviceIDs()), missing(was.checkIDs(), is.checkIDs())
	if len(services)+len(checks) > 0 {
		v.remembered[key] = rem.without(services, checks)
	}
}

// missing returns what was and is not.
func missing(was, is set) set {
	gone := make(set)
	for id := range was {
		if !is.has(id) {
			gone.add(id)
		}
	}
	return gone
}

// applyTombstone forgets what a tombstone names.
func (v *View) applyTombstone(t catalog.Tombstone) {
	key := nameKey(t.Node)
	rem := v.remembered[key]
	switch {
	case rem == nil:
	case t.ServiceID != "":
		v.remembered[key] = rem.without(set{t.ServiceID: {}}, nil)
	case t.CheckID != "":
		v.remembered[key] = rem.without(nil, set{t.CheckID: {}})
	default:
		delete(v.remembered, key)
	}
}

// dropRemembered forgets what is remembered of a node once that must not show any more: it
// has told this history all it has, has left, or goes by another name now. ids
// are keys of nodes by ID, as they show.
func (v *View) dropRemembered(key string, ids *iradix.Txn) {
	rem := v.remembered[key]
	if rem == nil {
		return
	}
	if v.life(rem.node) == catalog.Left || v.current != nil && (v.isSynced(v.current.nodes[key]) || v.isRenamed(key, rem, ids)) {
		delete(v.remembered, key)
	}
}

// isRenamed reports whether this history has the node's ID under another name.
func (v *View) isRenamed(key string, rem *nodeRecord, ids *iradix.Txn) bool {
	id := strings.ToLower(rem.node.ID)
	now, ok := ids.Get([]byte(id))
	if id == "" || !ok || now.(string) == key {
		return false
	}
	n := v.current.nodes[now.(string)]
	return n != nil && strings.ToLower(n.node.ID) == id
}

// formerName returns under which name something is remembered of a node that
// this history has by the name of key.
func (v *View) formerName(key string, ids *iradix.Txn) (former string, ok bool) {
	n := v.current.nodes[key]
	if n == nil || n.node.ID == "" {
		return "", false
	}
	was, ok := ids.Get([]byte(strings.ToLower(n.node.ID)))
	if !ok || was.(string) == key || v.remembered[was.(string)] == nil {
		return "", false
	}
	rem := v.remembered[was.(string)]
	return was.(string), strings.EqualFold(rem.node.ID, n.node.ID)
}

// isSynced reports whether the node's agent has told this history all it has.
func (v *View) isSynced(n *nodeRecord) bool {
	return n != nil && n.node.Synced != "" && n.node.Synced == v.current.history.ID
}

func (v *View) life(n *catalog.Node) catalog.Life {
	if v.cfg.Liveness == nil || n.ID == "" {
		return catalog.NeverSeen
	}
	return v.cfg.Liveness.Life(n.ID)
}
