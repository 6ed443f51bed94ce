package membership

import "time"

const (
	// A suspicion is confirmed by this many pings of our own, sent confirmPace apart,
	// none of them answered within confirmWindow, or within two round trips and a bit
	// where the way is known to be longer.
	confirmPings  = 3
	confirmPace   = 100 * time.Millisecond
	confirmWindow = 500 * time.Millisecond
	confirmLong   = 2 * time.Second
	// verifyEvery is how often a member that answers, and that gossip calls
	// dead all the same, is asked again: nobody else watches it.
	verifyEvery = 2 * time.Second
	// stallIgnore: suspicions are put off for this long after this process itself
	// didn't run for a while; accuserDead: and those of an accuser that was
	// itself dead so lately.
	stallIgnore = 500 * time.Millisecond
	accuserDead = 30 * time.Second
)

// suspicion is a death that is being confirmed.
type suspicion struct {
	at, next, until time.Time
	sent, pings     int // of the pings it is asked with
	pace            time.Duration
	controls        []*record // are asked along with it
	inVain          bool      // a whole window has passed, in which others were silent too
	control         bool      // nobody accuses it: it is asked since others are silent
}

// suspect looks into a death that gossip tells, by whom if that is known.
func (m *Machine) suspect(now time.Time, r *record, by string) {
	m.counts.Suspicions++
	r.unaccused = false
	if now.Sub(m.stalled) < stallIgnore || m.recentlyDead(now, by) {
		m.counts.Ignored++
		r.verifyAt = now.Add(verifyEvery)
		m.wake(r)
		return
	}
	if c := r.suspicion; c != nil {
		if c.control { // accused only now: others are to be asked along with it
			m.startSuspicion(now, r)
			r.suspicion.inVain = c.inVain
		}
		return
	}
	if r.dead && r.back.IsZero() {
		return
	}
	if m.unanswered(now, r) {
		if !m.maybeCutOff(now, r, r.suspected.controls, r.suspected.since) {
			m.declareDead(now, r)
		}
		return
	}
	m.startSuspicion(now, r)
	if r.Status == Alive {
		m.setStatus(now, r, Suspect)
	}
}

// recentlyDead reports whether an accuser was itself dead a short while ago.
func (m *Machine) recentlyDead(now time.Time, by string) bool {
	r := m.byName[by]
	return r != nil && !r.diedAt.IsZero() && (r.dead || now.Sub(r.aliveFrom) < accuserDead)
}

// startSuspicion begins the pings that confirm a death or refute it. After this host was
// cut off it has patience: ways that were cut take a second or two to be found
// again.
func (m *Machine) startSuspicion(now time.Time, r *record) {
	r.suspicion = &suspicion{at: now, next: now, until: now.Add(m.window(r)), pings: confirmPings, pace: confirmPace}
	if now.Sub(m.heardAgain) < afterCutOff {
		r.suspicion.patient(now)
	}
	m.wake(r)
}

// patient has a member asked until shortly before the end of a longer time.
func (c *suspicion) patient(now time.Time) {
	c.pings, c.pace, c.until = 4, afterCutOff/4, now.Add(afterCutOff)
}

// window is how long answers are waited for.
func (m *Machine) window(r *record) time.Duration {
	return max(confirmWindow, min(confirmWindow/2+2*r.RTT, confirmLong))
}

// declareDead: three pings went unanswered, or link found the host's port refused.
func (m *Machine) declareDead(now time.Time, r *record) {
	r.suspicion, r.suspected = nil, nil
	switch {
	case !r.back.IsZero():
		m.relapse(now, r)
		return
	case r.dead || r.Status == Left:
		return
	}
	r.dead, r.diedAt = true, now
	m.counts.Confirmed++
	m.engageGuard(now)
	switch {
	case m.guard.on:
		m.protect(now, r)
	default:
		m.fail(now, r)
	}
}

// fail takes a member out.
func (m *Machine) fail(now time.Time, r *record) {
	if now.Before(r.forcedUntil) {
		m.depart(now, r, "", r.forcePrune)
		return
	}
	r.hold.flap(now, &m.cfg)
	m.counts.Flaps++
	r.Flaps = r.hold.flaps
	r.back, r.HeldUntil = time.Time{}, time.Time{}
	m.setStatus(now, r, Failed)
	m.log(died, r, "by", r.ToldBy)
	m.wake(r)
}

// stepSuspicion sends the pings of a confirmation and draws its conclusion. When
// this process was held up meanwhile, answers may lie unread: it begins anew.
func (m *Machine) stepSuspicion(now time.Time, r *record) {
	c := r.suspicion
	if m.stalled.After(c.at) {
		control := c.control
		m.startSuspicion(now, r)
		c = r.suspicion
		c.control = control
	}
	if c.sent < c.pings && !now.Before(c.next) {
		if c.sent == 0 && !c.control {
			c.controls = m.controls(r, confirmPings)
		}
		m.pingMember(now, r)
		for _, control := range c.controls {
			m.pingMember(now, control)
		}
		c.sent++
		c.next = c.next.Add(c.pace)
	}
	if c.sent < c.pings || now.Before(c.until) {
		return
	}
	switch {
	case m.maybeCutOff(now, r, c.controls, c.at):
	case c.control:
		r.suspicion = nil
	default:
		m.declareDead(now, r)
	}
}
