package view

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// Whence an image is, for Adopt.
const (
	FromDisk      = "disk"
	FromNeighbour = "neighbour"
)

// Image returns all that the view knows, but for what the own agent holds.
func (v *View) Image() *Image {
	v.mu.Lock()
	defer v.mu.Unlock()
	img := &Image{Asked: v.askedFor(time.Now())}
	if c := v.current; c != nil {
		img.Current = toldOf(c.nodes, c.names)
		img.Current.History, img.Current.Index = c.history, c.index
		img.Current.Base, img.Current.Whole = true, c.whole
		img.Current.Complete = sorted(c.complete)
		img.Current.Confirmed = v.Confirmed()
		if c.origin != nil {
			img.Current.Confirmed = c.origin.at
		}
		for t := range c.tombstones {
			img.Current.Tombstones = append(img.Current.Tombstones, t)
		}
		slices.SortFunc(img.Current.Tombstones, func(a, b catalog.Tombstone) int {
			return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ServiceID, b.ServiceID), cmp.Compare(a.CheckID, b.CheckID))
		})
	}
	img.Remembered = toldOf(v.remembered, v.missed)
	img.Remembered.Base = v.earlier || v.settled
	if v.rememberedOrigin != nil {
		img.Remembered.Confirmed = v.rememberedOrigin.at
	}
	img.Lives = v.lives(img)
	return img
}

// askedFor returns when each service was last asked for.
func (v *View) askedFor(now time.Time) map[string]time.Time {
	v.state.Load().services.Root().Walk(func(key []byte, e any) bool {
		if v.subs[string(key)] == nil && e.(*serviceEntry).mark.used.Swap(false) {
			v.asked[string(key)] = now
		}
		return false
	})
	asked := maps.Clone(v.asked)
	for name, sub := range v.subs {
		asked[name] = sub.used
		if e := v.state.Load().service(name); e != nil && e.mark.used.Load() {
			asked[name] = now
		}
	}
	return asked
}

// toldOf takes nodes apart as updates tell them.
func toldOf(nodes map[string]*held, names set) Told {
	t := Told{Names: sorted(names)}
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[key]
		t.Nodes = append(t.Nodes, catalog.NodeState{Node: n.node, Checks: n.checks, Addresses: n.addresses})
		for _, p := range n.parts {
			t.Parts = append(t.Parts, catalog.Part{Node: n.node.Node, Service: p.name, Services: p.services, Checks: p.checks})
		}
	}
	return t
}

// lives returns what is known of the nodes being alive.
func (v *View) lives(img *Image) []LifeOf {
	if v.cfg.Lives != nil {
		return v.cfg.Lives()
	}
	var lives []LifeOf
	for _, n := range slices.Concat(img.Current.Nodes, img.Remembered.Nodes) {
		if life := v.life(n.Node); life != NeverSeen {
			lives = append(lives, LifeOf{NodeID: n.Node.ID, Name: n.Node.Node, Life: life})
		}
	}
	return lives
}

// holding is what was told, as it is held: not vouched for by anybody here.
func (t *Told) holding(from string) *holding {
	h := begin(&catalog.Update{History: t.History, Whole: t.Whole})
	h.vouched, h.origin = false, &origin{from: from, at: t.Confirmed}
	u := catalog.Update{Index: t.Index, Nodes: t.Nodes, Names: t.Names, Parts: t.Parts, Complete: t.Complete, Tombstones: t.Tombstones}
	_ = h.apply(&u, newChanges()) // fails for another history only, and u names none
	return h
}

// Adopt takes over what a file or a neighbour knows, FromDisk or FromNeighbour,
// and reports whether anything new came of it. It adds to what is known and never
// overrides what a server said: the whole of it counts where nothing is known
// yet; of the history that the view follows, contents that aren't here count as
// older ones; what is remembered of earlier histories counts while a living
// member has not told the present one all it has, and this host has seen none
// before (VIEWS rules 11, 18 and 26).
//
// What the image says of lives is gossip's to take: Image.Lives.
func (v *View) Adopt(img *Image, from string) bool {
	if img.IsEmpty() {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.newDraft()
	before := *d.next
	for name, at := range img.Asked {
		if v.asked[name].Before(at) {
			v.asked[name] = at
		}
	}
	next := img.Current.holding(from)
	provisional := from != FromDisk && next.history.Provisional
	switch {
	case provisional || next.history.ID == "":
	case v.current == nil && img.Current.Base:
		v.adoptWhole(d, img, next)
	case v.current != nil && v.current.history.ID == next.history.ID:
		v.adoptContents(d, img, next)
	}
	v.adoptRemembered(d, img, next, from)
	if v.current != nil {
		d.next.history, d.next.index = v.current.history, max(v.current.index, d.next.index)
		d.setBase()
	}
	v.redraw(d)
	if d.isSame(&before) {
		return false
	}
	news := *d.next != before
	v.publish(d)
	return news || len(d.bumps) > 0 // what was looked at anew may be as it was
}

// adoptWhole begins with what an image says, which no server has vouched for.
func (v *View) adoptWhole(d *draft, img *Image, next *holding) {
	v.current = next
	if v.Confirmed().Before(img.Current.Confirmed) {
		at := img.Current.Confirmed
		v.confirmed.Store(&at)
	}
	v.logger.Info("catalog is known from before", "from", next.origin.from, "history", next.history.ID,
		"index", next.index, "confirmed", img.Current.Confirmed)
	v.askAnew()
	d.touchAll()
}

// adoptContents takes over contents of services that exist in the present
// history and whose contents are not here: they are older ones.
func (v *View) adoptContents(d *draft, img *Image, next *holding) {
	c := v.current
	for key, theirs := range next.nodes {
		n := c.nodes[key]
		if n == nil {
			continue
		}
		for _, p := range theirs.parts {
			if c.isHere(p.name) || !c.names.has(p.name) || n.part(p.name) != nil {
				continue
			}
			n = n.with(p)
			v.origins[p.name] = next.origin
		}
		if n != c.nodes[key] {
			c.nodes[key] = n
			d.touchNode(key)
		}
	}
}

// adoptRemembered takes over what an image says of earlier histories. Of a whole
// one, all: then this host knows what a host knows that was there. Of one name,
// its contents on nodes that are remembered here.
func (v *View) adoptRemembered(d *draft, img *Image, next *holding, from string) {
	rem := img.Remembered.holding(from)
	foreign := v.current != nil && next.history.ID != v.current.history.ID && !next.history.Provisional
	switch {
	case v.current == nil:
		return
	case !img.Current.Base:
		v.adoptMissed(d, rem)
		return
	case (v.earlier || v.settled) && v.current != next:
		return // this host knows the earlier history itself, or needs it no more
	case foreign:
		// A host that has not heard of the present history yet: its word is what
		// the earlier one said.
		v.earlier = true
		v.remember(rem)
		v.remember(next)
	case len(rem.nodes)+len(rem.names) == 0 && (v.earlier || !img.Remembered.Base):
		return // it knows of nothing earlier either
	default:
		v.earlier = v.earlier || img.Remembered.Base
		v.remember(rem)
	}
	if v.rememberedOrigin == nil {
		v.rememberedOrigin = rem.origin
	}
	for t := range v.current.tombstones {
		v.bury(t)
	}
	d.touchAll()
}

// adoptMissed takes over the contents of services that earlier histories had.
func (v *View) adoptMissed(d *draft, rem *holding) {
	for key, theirs := range rem.nodes {
		if mine := v.remembered[key]; mine != nil {
			v.remembered[key] = overlay(mine, theirs)
			d.touchNode(key)
		}
	}
}
