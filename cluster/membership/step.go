package membership

import (
	"math/rand/v2"
	"time"
)

const (
	// absentAfter is how long after the first contact a member of the snapshot
	// may be unheard of before it is asked.
	absentAfter = 15 * time.Second
	// restoredKept is for how long an ID that left is remembered: as long as a
	// view's file may know instances of it.
	restoredKept = 30 * 24 * time.Hour
)

// Step does what is due. busy says that more will be soon.
func (m *Machine) Step(now time.Time) (busy bool) {
	if m.contact.IsZero() && len(m.inTouch()) > 0 {
		m.contact, m.want.Met = now, true
	}
	m.probeNext(now)
	for r := range m.active {
		if !m.stepMember(now, r) {
			delete(m.active, r)
		}
	}
	for key, c := range m.conflicts {
		if !m.stepConflict(now, c) {
			delete(m.conflicts, key)
		}
	}
	for nonce, a := range m.asked {
		if now.Sub(a.at) > askedKept {
			delete(m.asked, nonce)
		}
	}
	return len(m.active) > 0 || len(m.conflicts) > 0
}

// stepMember does what is due for one, and reports whether there will be more.
func (m *Machine) stepMember(now time.Time, r *record) bool {
	switch {
	case r.suspicion != nil:
		m.stepSuspicion(now, r)
		return true
	case r.suspected != nil:
		return m.stepSuspect(now, r) || r.dead
	case r.Status == Failed && !r.back.IsZero():
		m.stepReturn(now, r)
		return true
	case r.dead && (r.Status == Suspect || r.InTouch()), r.Status == Left && r.Told == Alive:
		// Dead and protected by the guard, or by link's word, or back without having
		// said so itself: asked until it answers.
		if !now.Before(r.nextPing) {
			m.pingMember(now, r)
			r.nextPing = now.Add(m.pace())
		}
		return true
	case r.Status == Alive && r.Told == Failed:
		if !now.Before(r.verifyAt) {
			r.verifyAt = now.Add(verifyEvery)
			m.startSuspicion(now, r)
		}
		return true
	}
	return false
}

// pace keeps pings to those that don't answer below a hundred a second.
func (m *Machine) pace() time.Duration {
	return max(returnPing, time.Duration(len(m.active))*10*time.Millisecond)
}

func (m *Machine) pingMember(now time.Time, r *record) {
	m.ping(now, r.Name, r.ID, r.At(), asked{r: r})
}

// Stalled notes that this process was held up, or its host cut off.
func (m *Machine) Stalled(now time.Time) { m.stalled = now }

// Sweep reaps, forgets, and looks for those of the snapshot that didn't show
// up. It looks at all members: now and then.
func (m *Machine) Sweep(now time.Time) {
	for _, r := range m.byName {
		switch {
		case r.Status == Failed && !r.InTouch() && r.back.IsZero() && now.Sub(r.Since) > m.cfg.ReconnectTimeout:
			r.dead = false
			delete(m.active, r)
			m.setTold(now, r, Left, m.self.Name)
			m.setStatus(now, r, Left)
			m.log(reaped, r)
		case r.Status == Left && r.Told == Left && now.Sub(r.Since) > m.cfg.TombstoneTimeout:
			m.erase(now, r)
		case r.Status == Alive && r.Told == NeverSeen && !m.contact.IsZero() && now.Sub(m.contact) > absentAfter:
			m.setTold(now, r, Failed, m.self.Name)
			m.suspect(now, r, "")
		}
		if r.hold.decay(now, &m.cfg); r.Flaps != r.hold.flaps {
			r.Flaps = r.hold.flaps
			m.touch(r)
		}
		if r.shown != nil && r.RTT != r.shown.RTT {
			m.touched[r] = struct{}{}
		}
	}
	for id, l := range m.restored {
		if l.Status == Left && now.Sub(l.Since) > restoredKept {
			m.dropLife(id)
		}
	}
	m.expireConflict(now)
}

// inTouch returns the other members that gossip has, in random order.
func (m *Machine) inTouch() []*record {
	var out []*record
	for _, r := range m.byName {
		if r.InTouch() {
			out = append(out, r)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Resync makes the members what gossip has, after its word on some was lost.
func (m *Machine) Resync(now time.Time, alive []Node) {
	here := make(map[string]bool, len(alive))
	for _, n := range alive {
		here[n.Name] = true
		m.Alive(now, n)
	}
	for _, r := range m.inTouch() {
		if !here[r.Name] {
			m.Dead(now, r.Name, "")
		}
	}
}
