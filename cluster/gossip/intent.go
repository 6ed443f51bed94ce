package gossip

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Intents are told to everybody by gossip, more than once. They carry a Lamport
// time and an ID; those older than the window are not looked at any more, and
// those within it once.
const (
	intentWindow = 512
	intentsEach  = 16 // of one Lamport time
	// clockLeap is what the clock may be ahead of ours: more is no clock's.
	clockLeap = 1 << 40
)

// ring remembers the intents seen lately.
type ring struct {
	slots [intentWindow]struct {
		ltime uint64
		ids   []uint64
	}
}

// fresh reports whether an intent is new, and remembers it.
func (s *ring) fresh(clock, ltime, id uint64) bool {
	if ltime+intentWindow <= clock {
		return false
	}
	slot := &s.slots[ltime%intentWindow]
	if slot.ltime > ltime {
		return false
	}
	if slot.ltime < ltime {
		slot.ltime, slot.ids = ltime, slot.ids[:0]
	}
	if slices.Contains(slot.ids, id) || len(slot.ids) >= intentsEach {
		return false
	}
	slot.ids = append(slot.ids, id)
	return true
}

// intend makes an intent of this host's.
func (l *ledger) intend(kind messageKind, r *record, prune bool) message {
	l.clock++
	m := message{
		kind: kind, nonce: rand.Uint64(), ltime: l.clock, life: r.life,
		name: r.Name, id: r.ID, from: l.self.Name, prune: prune,
	}
	l.seen.fresh(l.clock, m.ltime, m.nonce)
	l.out.casts = append(l.out.casts, m)
	return m
}

// intent takes one of another host's, and passes it on the first time.
func (l *ledger) intent(now time.Time, m message) {
	if m.ltime > l.clock+clockLeap || !l.seen.fresh(l.clock, m.ltime, m.nonce) {
		return
	}
	l.clock = max(l.clock, m.ltime)
	l.out.casts = append(l.out.casts, m)
	r := l.byName[m.name]
	if r == nil || r.ID != m.id {
		return
	}
	switch m.kind {
	case leaveMessage:
		if m.life == r.life {
			l.depart(now, r, m.from, false)
		}
	case forceMessage:
		if m.ltime > r.leftLTime {
			l.forced(now, r, m)
		}
	case doubtMessage:
		if m.life == r.life && m.from != l.self.Name {
			l.doubted(now, r, m.from)
		}
	}
}

// forced: an operator says that a dead member shall count as left. One that
// lives here isn't touched; hosts find a death at different times, so that one
// found dead soon has left, then. But a sign of life that comes after the order
// refutes it: it is asked for at once.
func (l *ledger) forced(now time.Time, r *record, m message) {
	if r.Status == Failed || r.dead || r.Status == Left {
		l.depart(now, r, m.from, m.prune)
		return
	}
	r.forcedUntil, r.forcePrune = now.Add(forceKept), m.prune
	l.pingMember(now, r)
}

// leave says that this host goes.
func (l *ledger) leave(now time.Time) message {
	m := l.intend(leaveMessage, l.self, false)
	l.setStatus(now, l.self, Left)
	l.setTold(now, l.self, Left, l.self.Name)
	return m
}

// heard takes what another host told of those that are gone.
func (l *ledger) heard(now time.Time, h hearsay) {
	if h.clock <= l.clock+clockLeap {
		l.clock = max(l.clock, h.clock)
	}
	for _, d := range h.gone {
		if d.name != l.self.Name && d.id != l.self.ID {
			l.heardOf(now, d, h.from)
		}
	}
}

func (l *ledger) heardOf(now time.Time, d departed, by string) {
	r := l.byName[d.name]
	switch {
	case r == nil:
		l.heardNew(now, d, by)
	case r.ID != d.id || d.life < r.life || r.Told == Left:
	case d.status == Failed:
		if r.Told == NeverSeen {
			l.setTold(now, r, Failed, by)
			l.accuse(now, r, by)
		}
	case r.Told == Alive || r.Told == Suspect:
		// It lives, as far as gossip knows; should it be found dead now, then
		// it has left.
		r.forcedUntil, r.forcePrune = now.Add(forceKept), false
		l.pingMember(now, r)
	default:
		l.depart(now, r, by, false)
	}
}

// heardNew adds a member that is gone and that wasn't known. That it is dead is
// a claim like any other.
func (l *ledger) heardNew(now time.Time, d departed, by string) {
	_, buried := l.gone[d.id]
	keep := l.reconnect
	if d.status == Left {
		keep = l.tombstone
	}
	if buried || l.byID[d.id] != nil || d.ago > keep || len(l.byName) >= maxMembers {
		return
	}
	r := l.add(node{name: d.name, addr: d.addr, meta: meta{life: d.life, tags: map[string]string{tagID: d.id, tagDatacenter: d.dc}}})
	kept, known := l.restored[d.id]
	delete(l.restored, d.id)
	r.Since, r.Told, r.ToldBy, r.ToldAt = now.Add(-d.ago), d.status, by, now
	switch {
	case d.status == Left:
		r.Status = Left
	case known && kept.status == Failed:
		r.Status, r.Since, r.dead, r.settled, r.diedAt = Failed, kept.since, true, true, kept.since
	default:
		if known && kept.status == Alive {
			r.Status, r.Since, r.aliveFrom = Alive, kept.since, kept.since
		}
		l.accuse(now, r, by)
	}
}

// hearsay is what this host tells of those that are gone.
func (l *ledger) hearsay(now time.Time) hearsay {
	h := hearsay{from: l.self.Name, clock: l.clock}
	for _, r := range l.byName {
		if (r.Status != Failed && r.Status != Left) || r.Told == Alive || r.Told == Suspect || !r.Addr.IsValid() {
			continue
		}
		h.gone = append(h.gone, departed{
			name: r.Name, id: r.ID, dc: r.Datacenter, life: r.life, addr: r.at(), status: r.Status, ago: now.Sub(r.Since),
		})
	}
	return h
}
