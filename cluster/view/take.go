package view

import (
	"time"

	"meibo/cluster/catalog"
)

// take makes an update part of the view.
func (v *View) take(u catalog.Update) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, before, err := v.drawUp(&u)
	if err != nil {
		return err
	}
	if !d.isSame(&before) {
		v.publish(d)
	}
	return nil
}

// drawUp drafts the state that an update leads to; before is what the draft
// began with.
func (v *View) drawUp(u *catalog.Update) (d *draft, before State, err error) {
	d = v.newDraft()
	before = *d.next
	if err := v.absorb(d, u); err != nil {
		return nil, before, err
	}
	if v.current != nil {
		d.next.history, d.next.index = v.current.history, max(v.current.index, d.next.index)
		d.setBase()
	}
	v.redraw(d)
	if u.Confirmed && v.vouches(u) {
		v.confirm(d)
	}
	return d, before, nil
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

// absorb takes an update over into what is held, or puts it aside until it
// counts: one of this history until it is past what is known (VIEWS rule 13),
// one of another until a server that has a leader confirms it (rule 14).
func (v *View) absorb(d *draft, u *catalog.Update) error {
	switch {
	case u.Reset:
		v.pending = begin(u)
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
		return v.goOn(d, u)
	}
	if !v.accepts(v.pending, u.Confirmed) {
		return nil
	}
	next := v.pending
	v.pending = nil
	v.install(d, next)
	return nil
}

// accepts reports whether what a source began with counts now.
func (v *View) accepts(next *holding, confirmed bool) bool {
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

// goOn takes over an update that follows what is held.
func (v *View) goOn(d *draft, u *catalog.Update) error {
	if !v.current.vouched {
		// The source goes on where this host's knowledge ends: so that is right.
		v.current.vouched, v.current.origin = true, nil
		d.touchAll()
	}
	c := newChanges()
	if err := v.current.apply(u, c); err != nil {
		return err
	}
	v.disown(v.current)
	for _, t := range u.Tombstones {
		v.bury(t)
	}
	for key, was := range c.nodes {
		v.forgetRemoved(key, was, v.current.nodes[key])
		d.touchNode(key)
	}
	for key := range c.names {
		d.touchName(key)
	}
	return nil
}

// install puts what a source began with in the place of what was held.
func (v *View) install(d *draft, next *holding) {
	old := v.current
	v.current = next
	v.disown(next)
	switch {
	case old == nil:
		v.logger.Info("catalog is known", "history", next.history.ID, "index", next.index)
	case old.history.ID == next.history.ID:
		next.keep(old)
		v.noteOrigin(old, next)
		for key, was := range old.nodes {
			v.forgetRemoved(key, was, next.nodes[key])
		}
	default:
		v.beginHistory(old, next)
	}
	for t := range next.tombstones {
		v.bury(t)
	}
	v.askAnew()
	d.touchAll()
}

// noteOrigin notes when contents were last good that are older ones from now on.
func (v *View) noteOrigin(old, next *holding) {
	if next.whole || !old.vouched {
		return
	}
	at := &origin{from: fromCatalog, at: v.Confirmed()}
	for name := range next.names {
		if old.isComplete(name) && !next.complete.has(name) {
			v.origins[name] = at
		}
	}
}

// beginHistory goes over from one history to another. What a provisional one
// said is dropped (VIEWS rule 29).
func (v *View) beginHistory(old, next *holding) {
	v.logger.Info("catalog began a new history", "history", next.history.ID, "before", old.history.ID,
		"provisional", old.history.Provisional)
	v.settled = false
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

// redraw brings the draft's trees up to what is held of all that it touches.
func (v *View) redraw(d *draft) {
	if d.all {
		v.touchEverything(d)
	}
	if v.current != nil {
		for key := range d.touchedNodes {
			if former, ok := v.formerName(key, d.ids); ok {
				delete(v.remembered, former)
				d.touchNode(former)
			}
		}
	}
	for _, key := range sorted(d.touchedNodes) {
		v.tidy(key, d.ids)
		d.set(key, v.effective(key))
	}
	d.next.remembered = v.rememberedOrigin
	v.settle(d)
}

// touchEverything marks all that is held or shows.
func (v *View) touchEverything(d *draft) {
	if v.current != nil {
		for key := range v.current.nodes {
			d.touchNode(key)
		}
		for key := range v.current.names {
			d.touchName(key)
		}
	}
	for key := range v.remembered {
		d.touchNode(key)
	}
	for key := range v.missed {
		d.touchName(key)
	}
	d.touchShown()
}

// settle finds out whether living members have still to tell this history what
// they have. Once none has, that is so for the rest of the history: who comes
// later brings something new.
func (v *View) settle(d *draft) {
	merging, others := v.unsynced(d.ids)
	young := v.isYoung()
	if !merging && others && v.current != nil && !v.settled && !young {
		v.settled = true
		for name := range v.missed {
			d.touchName(name)
		}
		clear(v.missed)
	}
	if v.expecting && v.current != nil && v.current.vouched && (!merging && !young || v.earlier) {
		v.learn(d)
	}
	if expecting := v.expecting && v.current != nil; expecting != d.next.expecting {
		d.next.expecting = expecting
		d.names = true
	}
	if unsettled := merging && !v.earlier; unsettled != d.next.unsettled {
		d.next.unsettled = unsettled
		d.names = true
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

// learn ends the time in which others are expected to tell more.
func (v *View) learn(d *draft) {
	v.expecting = false
	d.services.Root().Walk(func(key []byte, _ any) bool {
		d.touchName(string(key))
		return false
	})
	for name := range d.edits {
		d.touchName(name)
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
	d := v.newDraft()
	v.learn(d)
	v.redraw(d)
	v.publish(d)
}

// unsynced reports whether a living member has not told this history all it has,
// and whether there are other members at all.
func (v *View) unsynced(ids interface{ Get([]byte) (any, bool) }) (merging, others bool) {
	if v.cfg.Living == nil || v.current == nil || v.settled {
		return false, false
	}
	for id := range v.cfg.Living() {
		id = nameKey(id)
		if id == nameKey(v.cfg.NodeID) {
			continue
		}
		others = true
		key, ok := ids.Get([]byte(id))
		if !ok || !v.isSynced(v.current.nodes[key.(string)]) {
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
	return v.current == nil || !v.earlier && (merging || !v.settled && v.isYoung())
}

// Young reports whether others who have something to tell may not have been met yet,
// as the catalog has only begun.
func (v *View) Young() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.isYoung()
}

// OwnIsMistold reports whether a server says of this host's node something else than
// its agent does, or nothing, as far as every host knows of a node.
func (v *View) OwnIsMistold() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == nil || !v.current.vouched || v.own == nil || v.own.Node == nil {
		return false
	}
	theirs := v.current.nodes[v.ownKey]
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
	if c == nil {
		return catalog.History{}, 0, false, nil
	}
	if !c.whole {
		names = sorted(c.complete)
	}
	return c.history, c.index, c.whole, names
}

// confirm makes the draft fresh and tells the timer.
func (v *View) confirm(d *draft) {
	now := time.Now()
	v.confirmed.Store(&now)
	select {
	case v.heard <- struct{}{}:
	default:
	}
	if !d.next.fresh {
		d.next.fresh = true
		d.bumpEpoch()
	}
}
