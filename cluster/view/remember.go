package view

import (
	"slices"
	"strings"

	"meibo/cluster/catalog"
)

// What earlier histories said of a node, or a file or a neighbour, is remembered
// beside what the present one says until the node has told this history all it
// has (VIEWS rules 16 and 17).

// remember keeps what a history said that ends now.
func (v *View) remember(old *replica) {
	for n := range old.nodes.all() {
		v.remembered[n.key] = overlay(n, v.remembered[n.key])
	}
	for name := range old.names.all() {
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
	ids, checkIDs := upper.serviceIDs(), upper.checkIDs()
	services, checks, addresses := upper.services(), upper.allChecks(), slices.Clone(upper.addresses())
	for _, s := range lower.services() {
		if !ids.has(s.ID) {
			services = append(services, s)
		}
	}
	for _, c := range lower.allChecks() {
		if !checkIDs.has(c.CheckID) {
			checks = append(checks, c)
		}
	}
	for _, a := range lower.addresses() {
		if !ids.has(a.ServiceID) && !slices.ContainsFunc(upper.addresses(), func(b catalog.AddressOf) bool { return a.ServiceID == b.ServiceID }) {
			addresses = append(addresses, a)
		}
	}
	return newRecord(upper.key, upper.node, services, checks, addresses)
}

func (r *nodeRecord) serviceIDs() set {
	ids := make(set)
	for _, in := range r.instances {
		ids.add(in.service.ID)
	}
	return ids
}

func (r *nodeRecord) checkIDs() set {
	ids := make(set)
	for _, c := range r.allChecks() {
		ids.add(c.CheckID)
	}
	return ids
}

// without returns the node without services and checks of those IDs; a service
// takes its checks along.
func (r *nodeRecord) without(services, checks set) *nodeRecord {
	return newRecord(r.key, r.node,
		slices.DeleteFunc(r.services(), func(s *catalog.Service) bool { return services.has(s.ID) }),
		slices.DeleteFunc(r.allChecks(), func(c *catalog.Check) bool { return checks.has(c.CheckID) || services.has(c.ServiceID) }),
		slices.DeleteFunc(slices.Clone(r.addresses()), func(a catalog.AddressOf) bool { return services.has(a.ServiceID) }))
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
func (v *View) dropRemembered(key string, ids *table[*catalog.Node]) {
	rem := v.remembered[key]
	if rem == nil {
		return
	}
	if v.life(rem.node) == catalog.Left || v.current != nil && (v.isSynced(v.current.node(key)) || v.isRenamed(key, rem, ids)) {
		delete(v.remembered, key)
	}
}

// isRenamed reports whether this history has the node's ID under another name.
func (v *View) isRenamed(key string, rem *nodeRecord, ids *table[*catalog.Node]) bool {
	now, ok := nodeWithID(ids, rem.node.ID)
	if !ok || now == key {
		return false
	}
	n := v.current.node(now)
	return n != nil && strings.EqualFold(n.node.ID, rem.node.ID)
}

// formerName returns under which name something is remembered of a node that
// this history has by the name of key.
func (v *View) formerName(key string, ids *table[*catalog.Node]) (former string, ok bool) {
	n := v.current.node(key)
	if n == nil {
		return "", false
	}
	was, ok := nodeWithID(ids, n.node.ID)
	if !ok || was == key || v.remembered[was] == nil {
		return "", false
	}
	return was, strings.EqualFold(v.remembered[was].node.ID, n.node.ID)
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
