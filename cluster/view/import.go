package view

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// Whence an export is, for Import.
const (
	FromDisk      = "disk"
	FromNeighbour = "neighbour"
)

// Export returns all that the view knows, but for what the own agent holds.
func (v *View) Export() *Export {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := &Export{Asked: v.askedFor(time.Now())}
	if c := v.current; c != nil {
		e.Current = layerOf(c.nodes.all(), &c.names)
		e.Current.History, e.Current.Index = c.history, c.index
		e.Current.Reset, e.Current.Whole = true, c.whole
		e.Current.Complete = slices.Collect(c.complete.all())
		e.Current.ConfirmedAt = v.Confirmed()
		if c.origin != nil {
			e.Current.ConfirmedAt = c.origin.at
		}
		e.Current.Tombstones = slices.SortedFunc(maps.Keys(c.tombstones), func(a, b catalog.Tombstone) int {
			return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ServiceID, b.ServiceID), cmp.Compare(a.CheckID, b.CheckID))
		})
	}
	e.Remembered = layerOf(func(yield func(*nodeRecord) bool) {
		for _, key := range slices.Sorted(maps.Keys(v.remembered)) {
			if !yield(v.remembered[key]) {
				return
			}
		}
	}, &v.missed)
	e.Remembered.Reset = v.earlier || v.allSynced
	if v.rememberedOrigin != nil {
		e.Remembered.ConfirmedAt = v.rememberedOrigin.at
	}
	e.Lives = v.lives(e)
	return e
}

// askedFor returns when each service was last asked for.
func (v *View) askedFor(now time.Time) map[string]time.Time {
	for e := range v.state.Load().services.all() {
		if v.subs[e.key] == nil && e.mark.used.Swap(false) {
			v.asked[e.key] = now
		}
	}
	asked := maps.Clone(v.asked)
	for name, sub := range v.subs {
		asked[name] = sub.used
		if e := v.state.Load().service(name); e != nil && e.mark.used.Load() {
			asked[name] = now
		}
	}
	return asked
}

// layerOf takes nodes apart as updates tell them.
func layerOf(nodes iter.Seq[*nodeRecord], names *keys) Layer {
	numNodes, instances := 0, 0
	for n := range nodes {
		numNodes++
		instances += len(n.instances)
	}
	var l Layer
	l.Names = slices.Collect(names.all())
	l.Nodes, l.Parts = slices.Grow(l.Nodes, numNodes), slices.Grow(l.Parts, instances)
	// What parts hold is cut from these.
	services, checks := make([]*catalog.Service, 0, instances), make([]*catalog.Check, 0, instances)
	for n := range nodes {
		l.Nodes = append(l.Nodes, catalog.NodeState{Node: n.node, Checks: n.checks, Addresses: n.addresses()})
		for name, part := range n.parts() {
			service, check := len(services), len(checks)
			for _, in := range part {
				services = append(services, in.service)
				checks = append(checks, n.checksOf(in)...)
			}
			p := catalog.Part{Node: n.node.Node, Service: name, Services: slices.Clip(services[service:])}
			if len(checks) > check {
				p.Checks = slices.Clip(checks[check:])
			}
			l.Parts = append(l.Parts, p)
		}
	}
	return l
}

// lives returns what is known of the nodes being alive.
func (v *View) lives(e *Export) []LifeOf {
	if v.cfg.Lives != nil {
		return v.cfg.Lives()
	}
	var lives []LifeOf
	for _, n := range slices.Concat(e.Current.Nodes, e.Remembered.Nodes) {
		if life := v.life(n.Node); life != catalog.NeverSeen {
			lives = append(lives, LifeOf{NodeID: n.Node.ID, Name: n.Node.Node, Life: life})
		}
	}
	return lives
}

// replica is what was told, as a view has it: not vouched for by anybody here.
func (l *Layer) replica(from string) *replica {
	h := beginReplica(&l.Update)
	h.vouched, h.origin = false, &origin{from: from, at: l.ConfirmedAt}
	_ = h.apply(&l.Update, newChanges()) // fails for another history only
	return h
}

// Import takes over what a file or a neighbour knows, FromDisk or FromNeighbour,
// and reports whether anything new came of it. It adds to what is known and never
// overrides what a server said: the whole of it counts where nothing is known
// yet, or only an earlier state of the same history that no server vouches for; of
// the history that the view follows, contents that aren't here count as older ones;
// what is remembered of earlier histories counts while a living
// member has not told the present one all it has, and this host has seen none
// before (VIEWS rules 11, 18 and 26).
//
// What the export says of lives is gossip's to take: Export.Lives.
func (v *View) Import(e *Export, from string) bool {
	if e.IsEmpty() {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.newBuilder()
	for name, at := range e.Asked {
		if v.asked[name].Before(at) {
			v.asked[name] = at
		}
	}
	next, was := e.Current.replica(from), v.current
	provisional := from != FromDisk && next.history.Provisional
	switch {
	case provisional || next.history.ID == "":
	case v.current == nil && e.Current.Reset:
		v.importWhole(b, e, next)
	case v.current != nil && v.current.history.ID == next.history.ID && v.isBehind(&e.Current):
		v.importNewer(b, e, next)
	case v.current != nil && v.current.history.ID == next.history.ID:
		v.importContents(b, e, next)
	}
	v.importRemembered(b, e, next, was, from)
	if v.current != nil {
		b.next.history, b.next.index = v.current.history, max(v.current.index, b.next.index)
		b.setBase()
	}
	v.rebuild(b)
	if !b.isChanged() {
		return false
	}
	news := *b.next != b.first
	v.publish(b)
	return news || len(b.bumps) > 0 // what was looked at anew may be as it was
}

// importWhole begins with what an export says, which no server has vouched for.
func (v *View) importWhole(b *stateBuilder, e *Export, next *replica) {
	v.current = next
	if v.Confirmed().Before(e.Current.ConfirmedAt) {
		at := e.Current.ConfirmedAt
		v.confirmed.Store(&at)
	}
	v.logger.Info("catalog is known from before", "from", next.origin.from, "history", next.history.ID,
		"index", next.index, "confirmed", e.Current.ConfirmedAt)
	v.resubscribe()
	b.touchAll()
}

// isBehind reports whether an export knows all that this host does, and more: a file
// lacks what this host learned last before it died.
func (v *View) isBehind(l *Layer) bool {
	return l.Reset && v.src == nil && !v.current.vouched && v.current.index < l.Index
}

// importNewer goes on with what an export says in place of a file.
func (v *View) importNewer(b *stateBuilder, e *Export, next *replica) {
	old := v.current
	next.inherit(old)
	for was := range old.nodes.all() {
		v.forgetRemoved(was.key, was, next.node(was.key))
	}
	v.importWhole(b, e, next)
	for t := range next.tombstones {
		v.applyTombstone(t)
	}
}

// importContents takes over contents of services that exist in the present
// history and whose contents are not here: they are older ones.
func (v *View) importContents(b *stateBuilder, e *Export, next *replica) {
	c := v.current
	for theirs := range next.nodes.all() {
		was := c.node(theirs.key)
		if was == nil {
			continue
		}
		n := was
		for name, part := range theirs.parts() {
			if c.isHere(name) || !c.names.has(name) || len(n.part(name)) > 0 {
				continue
			}
			n = n.with(name, n.adopted(part, theirs))
			v.origins[name] = next.origin
		}
		if n != was {
			c.put(n)
			b.touchNode(n.key)
		}
	}
	c.nodes.commit()
}

// importRemembered takes over what an export says of earlier histories. Of a whole
// one, all: then this host knows what a host knows that was there. Of one name,
// its contents on nodes that are remembered here.
func (v *View) importRemembered(b *stateBuilder, e *Export, next, was *replica, from string) {
	rem := e.Remembered.replica(from)
	foreign := v.current != nil && next.history.ID != v.current.history.ID && !next.history.Provisional
	switch {
	case v.current == nil:
		return
	case !e.Current.Reset:
		v.importMissed(b, rem)
		return
	case (v.earlier || v.allSynced) && was != nil:
		return // this host knows the earlier history itself, or needs it no more
	case foreign:
		// A host that has not heard of the present history yet: its word is what
		// the earlier one said.
		v.earlier = true
		v.remember(rem)
		v.remember(next)
	case rem.nodes.len+rem.names.len == 0 && (v.earlier || !e.Remembered.Reset):
		return // it knows of nothing earlier either
	default:
		v.earlier = v.earlier || e.Remembered.Reset
		v.remember(rem)
	}
	if v.rememberedOrigin == nil {
		v.rememberedOrigin = rem.origin
	}
	for t := range v.current.tombstones {
		v.applyTombstone(t)
	}
	b.touchAll()
}

// importMissed takes over the contents of services that earlier histories had.
func (v *View) importMissed(b *stateBuilder, rem *replica) {
	for theirs := range rem.nodes.all() {
		if mine := v.remembered[theirs.key]; mine != nil {
			v.remembered[theirs.key] = overlay(mine, theirs)
			b.touchNode(theirs.key)
		}
	}
}
