package membership

import "time"

// Local health. A host that is cut off, alone or with a few more, finds the others dead one
// after the other, and the guard would come on only after half of them are out.
// So others that nobody accuses are asked along with whoever is to be found
// dead. While one of these is silent too, or so many are being asked that their
// deaths would put the guard on, nobody is found dead: more and more are asked,
// until those who were silent are too many, who then die at once, which puts the
// guard on before a single one was out; or until all of the last ones asked
// answered. Who was asked for no other reason than this isn't found dead by it.

const (
	// cutOffAfter: who heard nobody for this long and hears again was cut off, and
	// asks anew before it finds anybody dead. With four pings a second, a third
	// of them lost, that is once in ten minutes, and costs half a second.
	cutOffAfter = 1500 * time.Millisecond
	// afterCutOff: for this long it has patience, as ways that were cut take a
	// second or two to be found again.
	afterCutOff = 2 * time.Second
)

// controls returns up to n members that nobody accuses, at random.
func (m *Machine) controls(not *record, n int) []*record {
	var out []*record
	for _, r := range m.byName { // in random order
		if len(out) == n {
			break
		}
		if r != not && r.Status == Alive && r.suspicion == nil && r.Told != NeverSeen {
			out = append(out, r)
		}
	}
	return out
}

// census is who of those that lived a minute ago is silent now.
type census struct {
	alive  int       // of whom it is, dead ones included
	died   int       // found dead since
	silent []*record // asked in vain for a whole window, or to be judged now
	open   []*record // asked in vain so far
	real   bool      // one of the silent is accused
}

func (s census) massFailure(silent int) bool { return massFailure(s.alive, s.died+silent) }

// census sums up who is silent; r is about to be judged.
func (m *Machine) census(now time.Time, r *record) census {
	var s census
	s.alive, s.died = m.recentDeaths(now)
	then := now.Add(-guardWindow)
	for _, other := range m.byName {
		switch {
		case other.dead || other.excepted || !other.aliveAt(then, m.started):
		case other == r, other.suspicion != nil && other.suspicion.inVain:
			s.silent = append(s.silent, other)
			s.real = s.real || other != r && !other.suspicion.control
		case other.suspicion != nil, other.suspected != nil && other.suspected.sent >= confirmPings && other.lastPong.Before(other.suspected.since):
			s.open = append(s.open, other)
		}
	}
	return s
}

// maybeCutOff reports whether this host may be the one who doesn't hear, and asks
// on then. controls were asked since then, along with r.
func (m *Machine) maybeCutOff(now time.Time, r *record, controls []*record, since time.Time) bool {
	if m.guard.on || !r.back.IsZero() || r.dead {
		return false
	}
	s := m.census(now, r)
	if s.alive < guardLeast {
		return false
	}
	control := r.suspicion != nil && r.suspicion.control
	many := s.massFailure(len(s.silent) + len(s.open))
	var unheard []*record
	for _, c := range controls {
		if c.lastPong.Before(since) && !c.dead && m.knows(c) {
			unheard = append(unheard, c)
		}
	}
	if !many && len(unheard) == 0 && !m.anyAnswer.Before(since) && !(control && s.real) {
		return false
	}
	m.startSuspicion(now, r)
	r.suspicion.inVain, r.suspicion.control = true, control
	if s.massFailure(len(s.silent)) {
		m.failTogether(now, s.silent)
		return true
	}
	if many {
		unheard = append(unheard, s.open...)
	}
	if !control {
		unheard = append(unheard, m.controls(r, len(s.silent)+len(unheard))...)
	}
	for _, other := range unheard {
		if other.suspicion == nil {
			m.startSuspicion(now, other)
			other.suspicion.control = true
		}
	}
	return true
}

// failTogether: too many were silent. They die at once, and the guard protects
// them.
func (m *Machine) failTogether(now time.Time, silent []*record) {
	for _, r := range silent {
		r.unaccused = r.suspicion.control
		r.suspicion, r.suspected = nil, nil
		r.dead, r.diedAt = true, now
		m.counts.Confirmed++
	}
	m.engageGuard(now)
	for _, r := range silent {
		if m.guard.on {
			m.protect(now, r)
		} else {
			m.fail(now, r)
		}
	}
}
