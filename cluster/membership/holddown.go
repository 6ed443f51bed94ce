package membership

import "time"

// A member that came back is believed when it was steady for some time: five
// seconds at first unless the configuration says otherwise, doubled with each
// flap up to five minutes, halved again with each minute in which it didn't.
const (
	DefaultHoldDown    = 5 * time.Second
	DefaultHoldDownMax = 5 * time.Minute
	holdQuiet          = time.Minute
	// returnPing is how often a member on its way back is asked; returnLost is
	// for how long it may be silent meanwhile.
	returnPing = time.Second
	returnLost = 3 * time.Second
	// returnLast is how long it has at the end of its hold-down to answer once
	// more, asked each lastPing.
	returnLast = 500 * time.Millisecond
	lastPing   = 150 * time.Millisecond
)

// holddown is how long a member is held down when it comes back.
type holddown struct {
	hold  time.Duration // 0: it hasn't flapped lately
	flaps int
	last  time.Time // the last flap, moved on by each quiet minute
}

// flap counts a death, or a return that didn't last.
func (h *holddown) flap(now time.Time, cfg *Config) {
	h.decay(now, cfg)
	h.hold = min(max(2*h.hold, cfg.HoldDown), cfg.HoldDownMax)
	h.flaps++
	h.last = now
}

// decay takes the quiet minutes off that have passed.
func (h *holddown) decay(now time.Time, cfg *Config) {
	for (h.hold > 0 || h.flaps > 0) && now.Sub(h.last) >= holdQuiet {
		h.hold, h.flaps = h.hold/2, h.flaps/2
		if h.hold < cfg.HoldDown {
			h.hold = 0
		}
		h.last = h.last.Add(holdQuiet)
	}
}

// until is when a member that is back since then, and stays, is believed.
func (h holddown) until(back time.Time, cfg *Config) time.Time {
	h.decay(back, cfg)
	for {
		end := back.Add(max(h.hold, cfg.HoldDown))
		quiet := h.last.Add(holdQuiet)
		if h.hold <= cfg.HoldDown || !quiet.Before(end) {
			return end
		}
		h.decay(quiet, cfg)
		if end := back.Add(max(h.hold, cfg.HoldDown)); end.Before(quiet) {
			return quiet
		}
	}
}

// returning: a failed member answers.
func (m *Machine) returning(now time.Time, r *record) {
	switch {
	case r.back.IsZero() && !r.lived:
		r.back = now
		r.HeldUntil = r.hold.until(now, &m.cfg)
		r.nextPing = now.Add(min(returnPing, r.HeldUntil.Sub(now)))
		m.touch(r)
		m.log(held, r, "until", r.HeldUntil.Format(time.TimeOnly), "gone", r.Flaps)
		m.wake(r)
		if r.Told == Failed {
			m.want.Syncs = append(m.want.Syncs, r.At())
		}
	case !now.Before(r.HeldUntil):
		m.revive(now, r)
		if r.Told == Failed {
			r.verifyAt = now.Add(verifyEvery)
			m.wake(r)
		}
	}
}

// stepReturn watches a member that is on its way back. What ends its hold-down
// is an answer (see returning); silence ends the return.
func (m *Machine) stepReturn(now time.Time, r *record) {
	heard := r.lastPong
	if m.stalled.After(heard) {
		heard = m.stalled
	}
	due := !now.Before(r.HeldUntil)
	if now.Sub(heard) > returnLost || due && heard.Before(r.HeldUntil) && now.Sub(r.HeldUntil) > returnLast {
		m.relapse(now, r)
		return
	}
	if now.Before(r.nextPing) {
		return
	}
	m.pingMember(now, r)
	r.nextPing = now.Add(lastPing)
	if left := r.HeldUntil.Sub(now); left > 0 {
		r.nextPing = now.Add(min(returnPing, left))
	}
}

// relapse: a member on its way back is gone again.
func (m *Machine) relapse(now time.Time, r *record) {
	r.back, r.HeldUntil, r.lived = time.Time{}, time.Time{}, false
	delete(m.recalled, r)
	r.hold.flap(now, &m.cfg)
	m.counts.Flaps++
	r.Flaps = r.hold.flaps
	r.nextPing = now.Add(returnPing)
	m.touch(r)
	m.wake(r)
}
