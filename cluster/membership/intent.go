package membership

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
	// forceKept is how long an order to drop a member waits for its death.
	forceKept = time.Minute
)

// seenIntents remembers the intents seen lately.
type seenIntents struct {
	slots [intentWindow]struct {
		ltime uint64
		ids   []uint64
	}
}

// fresh reports whether an intent is new, and remembers it.
func (s *seenIntents) fresh(clock, ltime, id uint64) bool {
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
func (m *Machine) intend(kind MessageKind, r *record, prune bool) Message {
	m.clock++
	msg := Message{
		Kind: kind, Nonce: rand.Uint64(), LTime: m.clock, Life: r.Life,
		Name: r.Name, ID: r.ID, From: m.self.Name, Prune: prune,
	}
	m.seen.fresh(m.clock, msg.LTime, msg.Nonce)
	m.want.Broadcasts = append(m.want.Broadcasts, msg)
	return msg
}

// intent takes one of another host's, and passes it on the first time.
func (m *Machine) intent(now time.Time, msg Message) {
	if msg.LTime > m.clock+MaxLeap || !m.seen.fresh(m.clock, msg.LTime, msg.Nonce) {
		return
	}
	m.clock = max(m.clock, msg.LTime)
	m.want.Broadcasts = append(m.want.Broadcasts, msg)
	r := m.byName[msg.Name]
	if r == nil || r.ID != msg.ID {
		return
	}
	switch msg.Kind {
	case MessageLeave:
		if msg.Life == r.Life {
			m.depart(now, r, msg.From, false)
		}
	case MessageForce:
		if msg.LTime > r.leftLTime {
			m.forced(now, r, msg)
		}
	case MessageSuspect:
		if msg.Life == r.Life && msg.From != m.self.Name {
			m.suspectedBy(now, r, msg.From)
		}
	}
}

// forced: an operator says that a dead member shall count as left. One that
// lives here isn't touched; hosts find a death at different times, so that one
// found dead soon has left, then. But a sign of life that comes after the order
// refutes it: it is asked for at once.
func (m *Machine) forced(now time.Time, r *record, msg Message) {
	if r.Status == Failed || r.dead || r.Status == Left {
		m.depart(now, r, msg.From, msg.Prune)
		return
	}
	r.forcedUntil, r.forcePrune = now.Add(forceKept), msg.Prune
	m.pingMember(now, r)
}

// ForceLeave is an operator's order that a dead member shall count as left, with
// prune that it be forgotten. It reports whether there is one of that name; this
// host, which lives, isn't touched.
func (m *Machine) ForceLeave(now time.Time, name string, prune bool) bool {
	r := m.byName[name]
	if r != nil {
		m.forced(now, r, m.intend(MessageForce, r, prune))
	}
	return r != nil || name == m.self.Name
}

// Leave says that this host goes. The intent is for the caller to tell.
func (m *Machine) Leave(now time.Time) Message {
	msg := m.intend(MessageLeave, m.self, false)
	m.want.Broadcasts = m.want.Broadcasts[:len(m.want.Broadcasts)-1]
	m.setStatus(now, m.self, Left)
	m.setTold(now, m.self, Left, m.self.Name)
	return msg
}

// Merge takes what another host told of those that are gone.
func (m *Machine) Merge(now time.Time, s PushPull) {
	if s.Clock <= m.clock+MaxLeap {
		m.clock = max(m.clock, s.Clock)
	}
	for _, d := range s.Gone {
		if d.Name != m.self.Name && d.ID != m.self.ID {
			m.mergeDeparted(now, d, s.From)
		}
	}
	m.mergeReturns(now, s)
}

// mergeReturns takes another's word for it that members live whose death a file told,
// if they ran before this process did: others saw them return, and this host didn't.
func (m *Machine) mergeReturns(now time.Time, s PushPull) {
	for r := range m.recalled {
		switch {
		case r.Status != Failed:
			delete(m.recalled, r)
		case r.Told == Alive && r.Life < m.self.Life && r.Name != s.From && !slices.ContainsFunc(s.Gone, func(d Departed) bool { return d.ID == r.ID }):
			r.lived, r.HeldUntil, r.nextPing = true, now, now
			m.wake(r)
		}
	}
}

func (m *Machine) mergeDeparted(now time.Time, d Departed, by string) {
	r := m.byName[d.Name]
	switch {
	case r == nil:
		m.mergeUnknown(now, d, by)
	case r.ID != d.ID || d.Life < r.Life || r.Told == Left:
	case d.Status == Failed:
		if r.Told == NeverSeen {
			m.setTold(now, r, Failed, by)
			m.suspect(now, r, by)
		}
	case r.InTouch():
		// It lives, as far as gossip knows; should it be found dead now, then
		// it has left.
		r.forcedUntil, r.forcePrune = now.Add(forceKept), false
		m.pingMember(now, r)
	default:
		m.depart(now, r, by, false)
	}
}

// mergeUnknown adds a member that is gone and that wasn't known. That it is dead
// is a suspicion like any other.
func (m *Machine) mergeUnknown(now time.Time, d Departed, by string) {
	was := m.restored[d.ID]
	kept := m.cfg.ReconnectTimeout
	if d.Status == Left {
		kept = m.cfg.TombstoneTimeout
	}
	if was.Status == Left || m.byID[d.ID] != nil || d.Ago > kept || len(m.byName) >= MaxMembers {
		return
	}
	m.dropLife(d.ID)
	r := m.add(d.Node)
	r.Since, r.Told, r.ToldBy, r.ToldAt = now.Add(-d.Ago), d.Status, by, now
	switch {
	case d.Status == Left:
		r.Status = Left
	case was.Status == Failed:
		m.recall(r, was.Since)
	default:
		if was.Status == Alive {
			r.Status, r.Since, r.aliveFrom = Alive, was.Since, was.Since
		}
		m.suspect(now, r, by)
	}
}
