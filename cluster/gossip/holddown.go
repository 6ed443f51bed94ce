package gossip

import "time"

// A member that came back is believed when it was steady for some time: five
// seconds at first unless the configuration says otherwise, doubled with each
// flap up to five minutes, halved again with each minute in which it didn't.
const (
	holdFirst = 5 * time.Second
	holdMost  = 5 * time.Minute
	holdQuiet = time.Minute
)

// holdLimits are the shortest and the longest hold-down.
type holdLimits struct{ first, most time.Duration }

// holddown is how long a member is held down when it comes back.
type holddown struct {
	hold  time.Duration // 0: it hasn't flapped lately
	flaps int
	last  time.Time // the last flap, moved on by each quiet minute
}

// flap counts a death, or a return that didn't last.
func (h *holddown) flap(now time.Time, of holdLimits) {
	h.decay(now, of)
	h.hold = min(max(2*h.hold, of.first), of.most)
	h.flaps++
	h.last = now
}

// decay takes the quiet minutes off that have passed.
func (h *holddown) decay(now time.Time, of holdLimits) {
	for (h.hold > 0 || h.flaps > 0) && now.Sub(h.last) >= holdQuiet {
		h.hold, h.flaps = h.hold/2, h.flaps/2
		if h.hold < of.first {
			h.hold = 0
		}
		h.last = h.last.Add(holdQuiet)
	}
}

// until is when a member that is back since then, and stays, is believed.
func (h holddown) until(back time.Time, of holdLimits) time.Time {
	h.decay(back, of)
	for {
		end := back.Add(max(h.hold, of.first))
		quiet := h.last.Add(holdQuiet)
		if h.hold <= of.first || !quiet.Before(end) {
			return end
		}
		h.decay(quiet, of)
		if end := back.Add(max(h.hold, of.first)); end.Before(quiet) {
			return quiet
		}
	}
}
