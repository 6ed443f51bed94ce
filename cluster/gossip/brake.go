package gossip

import "time"

// The brake (rule 21): when more than half of the other members that were alive
// a minute ago, and at least three, fail within a minute, this host suspects
// itself and takes out nobody, until half of them are back or a server with a
// leader confirms their deaths.
const (
	brakeWindow = time.Minute
	brakeLeast  = 3
	afterBrake  = 2 * time.Second
)

// brake is the state of it. While it is on, whoever is found dead stays
// Suspect.
type brake struct {
	on    bool
	since time.Time
	held  map[*record]bool // whom it was about; true: dead still, and not confirmed by a server
}

// weigh puts the brake on if the deaths of the last minute ask for it.
func (l *ledger) weigh(now time.Time) {
	if l.brake.on {
		return
	}
	then := now.Add(-brakeWindow)
	alive, died := l.toll(now)
	if !brakes(alive, died) {
		return
	}
	l.brake = brake{on: true, since: now, held: make(map[*record]bool)}
	l.counts.brakes++
	for _, r := range l.byName {
		if r.dead && !r.settled && r.diedAt.After(then) {
			l.hold(now, r)
		}
	}
	l.out.say(braked, "dead", died, "of", alive)
}

// toll counts the others that lived a minute ago, and those of them that died
// since.
func (l *ledger) toll(now time.Time) (alive, died int) {
	then := now.Add(-brakeWindow)
	for _, r := range l.byName {
		if r.settled || !r.aliveAt(then, l.started) {
			continue
		}
		alive++
		if r.dead && r.diedAt.After(then) {
			died++
		}
	}
	return alive, died
}

// brakes reports whether so many deaths are too many.
func brakes(alive, died int) bool { return died >= brakeLeast && 2*died > alive }

// aliveAt reports whether the member lived then: as long as this host hasn't
// run for that long, whether it lived at all since it was first known.
func (r *record) aliveAt(then, started time.Time) bool {
	if r.aliveFrom.IsZero() || r.Status == Left {
		return false
	}
	if r.dead && r.diedAt.Before(then) {
		return false
	}
	return !r.aliveFrom.After(then) || started.After(then)
}

// hold keeps, or puts back, a dead member as Suspect.
func (l *ledger) hold(now time.Time, r *record) {
	l.brake.held[r] = true
	r.back, r.HeldUntil = time.Time{}, time.Time{}
	l.setStatus(now, r, Suspect)
	l.wake(r)
}

// unhold takes a member out of the brake's account: it is back, or left.
func (l *ledger) unhold(now time.Time, r *record) {
	if l.brake.on && l.brake.held[r] {
		l.brake.held[r] = false
		l.release(now)
	}
}

// confirm takes out a member whose death a server confirms.
func (l *ledger) confirm(now time.Time, id string) {
	r := l.byID[id]
	if r == nil || !l.brake.on || !l.brake.held[r] {
		return
	}
	r.settled = true
	l.brake.held[r] = false
	l.fail(now, r)
	l.release(now)
}

// release ends the brake when half of those it was about are accounted for. The
// others are asked once more, with patience: they may be back just now too, and
// ways that were cut take a second or two to be found again. Those whom nobody
// accused live, as far as is known.
func (l *ledger) release(now time.Time) {
	dead := 0
	for _, still := range l.brake.held {
		if still {
			dead++
		}
	}
	if !l.brake.on || 2*dead > len(l.brake.held) {
		return
	}
	held := l.brake.held
	l.brake = brake{}
	l.out.say(unbraked)
	for r, still := range held {
		switch {
		case !still || !r.dead:
		case r.unaccused:
			l.revive(now, r)
		default:
			r.dead, r.settled = false, true
			l.ask(now, r)
			r.claim.patient(now)
		}
	}
}

// suspects returns the IDs of those that the brake holds.
func (l *ledger) suspects() []string {
	var ids []string
	for r, still := range l.brake.held {
		if still {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
