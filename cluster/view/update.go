package view

import (
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// applyUpdate makes an update part of the view.
func (v *View) applyUpdate(u catalog.Update) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, err := v.prepareUpdate(&u)
	if err == nil {
		v.publishChange(b)
	}
	return err
}

// prepareUpdate makes the state that an update leads to.
func (v *View) prepareUpdate(u *catalog.Update) (*stateBuilder, error) {
	b := v.newBuilder()
	if err := v.addUpdate(b, u); err != nil {
		return nil, err
	}
	if v.current != nil {
		b.next.history, b.next.index = v.current.history, max(v.current.index, b.next.index)
		b.setBase()
	}
	v.rebuild(b)
	if u.Confirmed && v.vouches(u) {
		v.confirm(b)
	}
	return b, nil
}

// vouches reports whether an update that is confirmed confirms the view: it is
// of the view's history. That it comes from a server that lags behind what the
// view knows does not matter.
func (v *View) vouches(u *catalog.Update) bool {
	switch {
	case v.current == nil || !v.current.vouched:
		return false
	case v.pending != nil:
		return v.pending.history.ID == v.current.history.ID
	}
	return true
}

// addUpdate adds an update to the present replica, or to a pending one until it
// counts: one of this history until it is past what is known (VIEWS rule 13),
// one of another until a server that has a leader confirms it (rule 14).
func (v *View) addUpdate(b *stateBuilder, u *catalog.Update) error {
	switch {
	case u.Reset:
		v.pending = beginReplica(u)
		if err := v.pending.apply(u, newChanges()); err != nil {
			return err
		}
	case v.pending != nil:
		if err := v.pending.apply(u, newChanges()); err != nil {
			return err
		}
	case v.current == nil:
		return errNoBeginning
	default:
		return v.continueReplica(b, u)
	}
	if !v.accepts(v.pending, u.Confirmed) {
		return nil
	}
	next := v.pending
	v.pending = nil
	v.replaceReplica(b, next)
	return nil
}

// accepts reports whether what a source began with counts now.
func (v *View) accepts(next *replica, confirmed bool) bool {
	switch {
	case next.history.ID == "":
		return false // no history has begun there
	case v.current == nil:
		return true
	case next.history.ID == v.current.history.ID:
		return next.index >= v.current.index
	case !confirmed && v.refused != next.history.ID:
		v.refused = next.history.ID
		v.logger.Warn("a server without a leader tells another history of the catalog, this host stays with its own",
			"history", v.current.history.ID, "other", next.history.ID)
	}
	return confirmed
}

// continueReplica adds an update that follows what is known.
func (v *View) continueReplica(b *stateBuilder, u *catalog.Update) error {
	if !v.current.vouched {
		if v.resumed != nil && v.resumed != v.current {
			return errResumedElsewhere
		}
		// The source goes on where this host's knowledge ends: so that is right.
		v.current.vouched, v.current.origin = true, nil
		b.touchAll()
	}
	c := newChanges()
	if err := v.current.apply(u, c); err != nil {
		return err
	}
	v.dropEnded(v.current)
	for _, t := range u.Tombstones {
		v.applyTombstone(t)
	}
	for key, was := range c.nodes {
		v.forgetRemoved(key, was, v.current.node(key))
		b.touchNode(key)
	}
	for key := range c.names {
		b.touchName(key)
	}
	return nil
}

// replaceReplica puts what a source began with in the place of what was known.
func (v *View) replaceReplica(b *stateBuilder, next *replica) {
	old := v.current
	v.current = next
	v.dropEnded(next)
	switch {
	case old == nil:
		v.logger.Info("catalog is known", "history", next.history.ID, "index", next.index)
	case old.history.ID == next.history.ID:
		next.inherit(old)
		v.recordOrigin(old, next)
		for was := range old.nodes.all() {
			v.forgetRemoved(was.key, was, next.node(was.key))
		}
	default:
		v.beginHistory(old, next)
	}
	for t := range next.tombstones {
		v.applyTombstone(t)
	}
	v.resubscribe()
	b.touchAll()
}

// recordOrigin notes when contents were last good that are older ones from now on.
func (v *View) recordOrigin(old, next *replica) {
	if next.whole || !old.vouched {
		return
	}
	at := &origin{from: fromCatalog, at: v.Confirmed()}
	for name := range next.names.all() {
		if old.isComplete(name) && !next.complete.has(name) {
			v.origins[name] = at
		}
	}
}

// beginHistory goes over from one history to another. What a provisional one
// said is dropped (VIEWS rule 29).
func (v *View) beginHistory(old, next *replica) {
	v.logger.Info("catalog began a new history", "history", next.history.ID, "before", old.history.ID,
		"provisional", old.history.Provisional)
	v.allSynced = false
	if old.history.Provisional {
		return
	}
	v.earlier = true
	at := old.origin
	if at == nil {
		at = &origin{from: fromCatalog, at: v.Confirmed()}
	}
	v.rememberedOrigin = at
	v.remember(old)
}

// rebuild brings the next state up to what is known of all that it touches.
func (v *View) rebuild(b *stateBuilder) {
	if b.all {
		v.touchAllKnown(b)
	}
	if v.current != nil && len(v.remembered) > 0 {
		for key := range b.touchedNodes {
			if former, ok := v.formerName(key, &b.ids.table); ok {
				delete(v.remembered, former)
				b.touchNode(former)
			}
		}
	}
	for _, key := range sorted(b.touchedNodes) {
		v.dropRemembered(key, &b.ids.table)
		b.setNode(key, v.effective(key))
	}
	b.next.remembered = v.rememberedOrigin
	v.updateMerging(b)
}

// touchAllKnown marks all that is known or shows.
func (v *View) touchAllKnown(b *stateBuilder) {
	if v.current != nil {
		for n := range v.current.nodes.all() {
			b.touchNode(n.key)
		}
		for key := range v.current.names.all() {
			b.touchName(key)
		}
	}
	for key := range v.remembered {
		b.touchNode(key)
	}
	for key := range v.missed.all() {
		b.touchName(key)
	}
	b.touchShown()
}

// updateMerging finds out whether living members have still to tell this history what
// they have. Once none has, that is so for the rest of the history: who comes
// later brings something new.
func (v *View) updateMerging(b *stateBuilder) {
	merging, others := v.unsynced(&b.ids.table)
	young := v.isYoung()
	if !merging && others && v.current != nil && !v.allSynced && !young {
		v.allSynced = true
		for name := range v.missed.all() {
			b.touchName(name)
		}
		v.missed = keys{}
	}
	if v.expecting && v.current != nil && v.current.vouched && (!merging && !young || v.earlier) {
		v.endExpecting(b)
	}
	if expecting := v.expecting && v.current != nil; expecting != b.next.expecting {
		b.next.expecting = expecting
		b.names = true
	}
	if mergePending := merging && !v.earlier; mergePending != b.next.mergePending {
		b.next.mergePending = mergePending
		b.names = true
	}
}

// youngFor is how long a catalog that begins may not have met all who have something
// to tell it: servers that begin anew together meet each other first, and hosts that
// knew them call them every ten seconds.
const youngFor = 12 * time.Second

// isYoung reports whether the present history has begun so lately, by the clocks of
// whoever began it and of this host.
func (v *View) isYoung() bool {
	if v.current == nil || v.cfg.Living == nil || !v.cfg.Expecting {
		return false
	}
	const perSecond = 1 << 20 // of a history's base
	return time.Since(time.Unix(int64(v.current.history.Base/perSecond), 0)).Abs() < youngFor
}

// endExpecting ends the time in which others are expected to tell more.
func (v *View) endExpecting(b *stateBuilder) {
	v.expecting = false
	for e := range b.services.all() {
		b.touchName(e.key)
	}
	for name := range b.edits {
		b.touchName(name)
	}
}

// Learned says that the others who may know more than this host have been heard,
// or can't be: what is known counts from now on. It is for whoever set
// Config.Expecting; once a server vouches for all there is, it is not needed.
func (v *View) Learned() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.expecting || v.current == nil {
		return // before the first base set there is nothing that could count
	}
	b := v.newBuilder()
	v.endExpecting(b)
	v.rebuild(b)
	v.publish(b)
}

// unsynced reports whether a living member has not told this history all it has,
// and whether there are other members at all.
func (v *View) unsynced(ids *table[*catalog.Node]) (merging, others bool) {
	if v.cfg.Living == nil || v.current == nil || v.allSynced {
		return false, false
	}
	for id := range v.cfg.Living() {
		id = nameKey(id)
		if id == nameKey(v.cfg.NodeID) {
			continue
		}
		others = true
		key, ok := nodeWithID(ids, id)
		if !ok || !v.isSynced(v.current.node(key)) {
			return true, true
		}
	}
	return false, others
}

// Lacks reports whether a neighbour may know what nobody else tells this host:
// there is no base set, or living members have still to tell the present history
// all they have, and no earlier view is here to know it by (VIEWS rules 16, 18
// and 26).
func (v *View) Lacks() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	merging, _ := v.unsynced(v.state.Load().ids)
	return v.current == nil || !v.earlier && (merging || !v.allSynced && v.isYoung())
}

// Young reports whether others who have something to tell may not have been met yet,
// as the catalog has only begun.
func (v *View) Young() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.isYoung()
}

// Behind reports whether others are expected to know more than the file that this
// host began with: no server vouches for it, and none has confirmed it to a
// neighbour since this host began.
func (v *View) Behind() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.expecting && v.current != nil && !v.current.vouched && v.Confirmed().Before(v.made)
}

// OwnIsMistold reports whether a server says of this host's node something else than
// its agent does, or nothing, as far as every host knows of a node.
func (v *View) OwnIsMistold() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == nil || !v.current.vouched || v.own == nil || v.own.Node == nil {
		return false
	}
	theirs := v.current.node(v.ownKey)
	return theirs == nil || mergeNode(theirs.node, v.own.Node) != theirs.node
}

// Merging reports whether a living member has still to tell the present history
// all it has (VIEWS rules 16 and 18): what shows may lack what nobody remembers
// here. A host without an earlier view asks a neighbour meanwhile.
func (v *View) Merging() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	merging, _ := v.unsynced(v.state.Load().ids)
	return merging
}

// Resume returns what a stream may go on from: the history and index up to which
// everything is known, whether that is of all services, and else the services
// whose contents are here. No history: nothing is known.
func (v *View) Resume() (history catalog.History, index uint64, whole bool, names []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.current
	v.resumed = c
	if c == nil {
		return catalog.History{}, 0, false, nil
	}
	if !c.whole {
		names = slices.Collect(c.complete.all())
	}
	return c.history, c.index, c.whole, names
}

// confirm makes the next state fresh and tells the timer.
func (v *View) confirm(b *stateBuilder) {
	now := time.Now()
	v.confirmed.Store(&now)
	select {
	case v.heard <- struct{}{}:
	default:
	}
	if !b.next.fresh {
		b.next.fresh = true
		b.bumpEpoch()
	}
}
