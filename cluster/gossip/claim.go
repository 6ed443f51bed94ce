package gossip

import "time"

// accuse looks into a claim.
func (l *ledger) accuse(now time.Time, r *record, by string) {
	l.counts.claims++
	r.unaccused = false
	if now.Sub(l.stalled) < stallIgnore || l.lately(now, by) {
		l.counts.ignored++
		r.verifyAt = now.Add(verifyEvery)
		l.wake(r)
		return
	}
	if c := r.claim; c != nil {
		if c.probe { // accused only now: others are to be asked along with it
			l.ask(now, r)
			r.claim.deaf = c.deaf
		}
		return
	}
	if r.dead && r.back.IsZero() {
		return
	}
	if l.silent(now, r) {
		if !l.deaf(now, r, r.doubt.controls, r.doubt.since) {
			l.verdict(now, r)
		}
		return
	}
	l.ask(now, r)
	if r.Status == Alive {
		l.setStatus(now, r, Suspect)
	}
}

// lately reports whether an accuser was itself dead a short while ago.
func (l *ledger) lately(now time.Time, by string) bool {
	r := l.byName[by]
	return r != nil && !r.diedAt.IsZero() && (r.dead || now.Sub(r.aliveFrom) < accuserDead)
}

// ask begins the pings that confirm a claim or refute it. After this host was
// cut off it has patience: ways that were cut take a second or two to be found
// again.
func (l *ledger) ask(now time.Time, r *record) {
	r.claim = &claim{at: now, next: now, until: now.Add(l.window(r)), pings: claimPings, pace: claimPace}
	if now.Sub(l.heardAgain) < afterBrake {
		r.claim.patient(now)
	}
	l.wake(r)
}

// patient has a member asked until shortly before the end of a longer time.
func (c *claim) patient(now time.Time) {
	c.pings, c.pace, c.until = 4, afterBrake/4, now.Add(afterBrake)
}

// window is how long answers are waited for.
func (l *ledger) window(r *record) time.Duration {
	return max(claimWindow, min(claimWindow/2+2*r.RTT, claimLong))
}

// verdict: three pings went unanswered, or link found the host's port refused.
func (l *ledger) verdict(now time.Time, r *record) {
	r.claim, r.doubt = nil, nil
	switch {
	case !r.back.IsZero():
		l.relapse(now, r)
		return
	case r.dead || r.Status == Left:
		return
	}
	r.dead, r.diedAt = true, now
	l.counts.confirmed++
	l.weigh(now)
	switch {
	case l.brake.on:
		l.hold(now, r)
	default:
		l.fail(now, r)
	}
}

// fail takes a member out.
func (l *ledger) fail(now time.Time, r *record) {
	if now.Before(r.forcedUntil) {
		l.depart(now, r, "", r.forcePrune)
		return
	}
	r.hold.flap(now, l.holds)
	l.counts.flaps++
	r.Flaps = r.hold.flaps
	r.back, r.HeldUntil = time.Time{}, time.Time{}
	l.setStatus(now, r, Failed)
	l.out.event(now, Died, r, "")
	l.wake(r)
}

// relapse: a member on its way back is gone again.
func (l *ledger) relapse(now time.Time, r *record) {
	r.back, r.HeldUntil = time.Time{}, time.Time{}
	r.hold.flap(now, l.holds)
	l.counts.flaps++
	r.Flaps = r.hold.flaps
	r.nextPing = now.Add(returnPing)
	l.out.touch(r)
	l.wake(r)
}
