package membership

import "time"

// The mass-failure guard (VIEWS rule 21): when more than half of the other members that were alive
// a minute ago, and at least three, fail within a minute, this host suspects
// itself and takes out nobody, until half of them are back or a server with a
// leader confirms their deaths.
const (
	guardWindow = time.Minute
	guardLeast  = 3
)

// guard is the state of it. While it is on, whoever is found dead stays
// Suspect.
type guard struct {
	on        bool
	protected map[*record]bool // whom it was about; true: dead still, and not confirmed by a server
}

// engageGuard puts the guard on if the deaths of the last minute ask for it.
func (m *Machine) engageGuard(now time.Time) {
	if m.guard.on {
		return
	}
	alive, died := m.recentDeaths(now)
	if !massFailure(alive, died) {
		return
	}
	m.guard = guard{on: true, protected: make(map[*record]bool)}
	m.counts.Guards++
	for _, r := range m.byName {
		if r.dead && !r.excepted && r.diedAt.After(now.Add(-guardWindow)) {
			m.protect(now, r)
		}
	}
	m.emit(guardBegan, "dead", died, "of", alive)
}

// recentDeaths counts the others that lived a minute ago, and those of them that died
// since.
func (m *Machine) recentDeaths(now time.Time) (alive, died int) {
	then := now.Add(-guardWindow)
	for _, r := range m.byName {
		if r.excepted || !r.aliveAt(then, m.started) {
			continue
		}
		alive++
		if r.dead && r.diedAt.After(then) {
			died++
		}
	}
	return alive, died
}

// massFailure reports whether so many deaths are too many.
func massFailure(alive, died int) bool { return died >= guardLeast && 2*died > alive }

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

// protect keeps, or puts back, a dead member as Suspect.
func (m *Machine) protect(now time.Time, r *record) {
	m.guard.protected[r] = true
	r.back, r.HeldUntil = time.Time{}, time.Time{}
	m.setStatus(now, r, Suspect)
	m.wake(r)
}

// unprotect ends that for a member that is back, or left.
func (m *Machine) unprotect(now time.Time, r *record) {
	if m.guard.on && m.guard.protected[r] {
		m.guard.protected[r] = false
		m.releaseGuard(now)
	}
}

// Confirm takes out a member whose death a server confirms.
func (m *Machine) Confirm(now time.Time, id string) {
	r := m.byID[id]
	if r == nil || !m.guard.on || !m.guard.protected[r] {
		return
	}
	r.excepted = true
	m.guard.protected[r] = false
	m.fail(now, r)
	m.releaseGuard(now)
}

// releaseGuard ends the guard when half of those it was about are accounted for. The
// others are asked once more, with patience: they may be back just now too, and
// ways that were cut take a second or two to be found again. Those whom nobody
// accused live, as far as is known.
func (m *Machine) releaseGuard(now time.Time) {
	dead := 0
	for _, still := range m.guard.protected {
		if still {
			dead++
		}
	}
	if !m.guard.on || 2*dead > len(m.guard.protected) {
		return
	}
	protected := m.guard.protected
	m.guard = guard{}
	m.emit(guardEnded)
	for r, still := range protected {
		switch {
		case !still || !r.dead:
		case r.unaccused:
			m.revive(now, r)
		default:
			r.dead, r.excepted = false, true
			m.startSuspicion(now, r)
			r.suspicion.patient(now)
		}
	}
}

// Protected returns the IDs of those that the guard keeps from being taken out.
func (m *Machine) Protected() []string {
	var ids []string
	for r, still := range m.guard.protected {
		if still {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
