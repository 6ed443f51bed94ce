package gossip

import "time"

// A host that is cut off, alone or with a few more, finds the others dead one
// after the other, and the brake would come on only after half of them are out.
// So others that nobody accuses are asked along with whoever is to be found
// dead. While one of these is silent too, or so many are being asked that their
// deaths would put the brake on, nobody is found dead: more and more are asked,
// until those who were silent are too many, who then die at once, which puts the
// brake on before a single one was out; or until all of the last ones asked
// answered. Who was asked for no other reason than this isn't found dead by it.

// controls returns up to n members that nobody accuses, at random.
func (l *ledger) controls(not *record, n int) []*record {
	var out []*record
	for _, r := range l.byName { // in random order
		if len(out) == n {
			break
		}
		if r != not && r.Status == Alive && r.claim == nil && r.Told != NeverSeen {
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

func (s census) brakes(silent int) bool { return brakes(s.alive, s.died+silent) }

// listen sums up who is silent; r is about to be judged.
func (l *ledger) listen(now time.Time, r *record) census {
	var s census
	s.alive, s.died = l.toll(now)
	then := now.Add(-brakeWindow)
	for _, other := range l.byName {
		switch {
		case other.dead || other.settled || !other.aliveAt(then, l.started):
		case other == r, other.claim != nil && other.claim.deaf:
			s.silent = append(s.silent, other)
			s.real = s.real || other != r && !other.claim.probe
		case other.claim != nil, other.doubt != nil && other.doubt.sent >= claimPings && other.lastPong.Before(other.doubt.since):
			s.open = append(s.open, other)
		}
	}
	return s
}

// deaf reports whether this host may be the one who doesn't hear, and asks on
// then. controls were asked since then, along with r.
func (l *ledger) deaf(now time.Time, r *record, controls []*record, since time.Time) bool {
	if l.brake.on || !r.back.IsZero() || r.dead {
		return false
	}
	s := l.listen(now, r)
	if s.alive < brakeLeast {
		return false
	}
	probe := r.claim != nil && r.claim.probe
	many := s.brakes(len(s.silent) + len(s.open))
	var mute []*record
	for _, c := range controls {
		if c.lastPong.Before(since) && !c.dead && l.byName[c.Name] == c {
			mute = append(mute, c)
		}
	}
	if !many && len(mute) == 0 && !l.anyAnswer.Before(since) && !(probe && s.real) {
		return false
	}
	l.ask(now, r)
	r.claim.deaf, r.claim.probe = true, probe
	if s.brakes(len(s.silent)) {
		l.despair(now, s.silent)
		return true
	}
	if many {
		mute = append(mute, s.open...)
	}
	if !probe {
		mute = append(mute, l.controls(r, len(s.silent)+len(mute))...)
	}
	for _, other := range mute {
		if other.claim == nil {
			l.ask(now, other)
			other.claim.probe = true
		}
	}
	return true
}

// despair: too many were silent. They die at once, and by the brake's leave.
func (l *ledger) despair(now time.Time, silent []*record) {
	for _, r := range silent {
		r.unaccused = r.claim.probe
		r.claim, r.doubt = nil, nil
		r.dead, r.diedAt = true, now
		l.counts.confirmed++
	}
	l.weigh(now)
	for _, r := range silent {
		if l.brake.on {
			l.hold(now, r)
		} else {
			l.fail(now, r)
		}
	}
}
