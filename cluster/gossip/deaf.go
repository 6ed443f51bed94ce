package gossip

import "time"

// A host that is cut off from everybody finds them dead one after the other,
// and the brake would come on only after half of them are out. So each ping of
// a confirmation goes along with one to a member that nobody accuses; while
// none of all these is answered, nobody is found dead. Instead more and more
// are asked, until more than half were silent, who then die at once: which
// puts the brake on before a single one was out.

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

// deaf reports whether this host heard nobody at all while it asked r, and goes
// on asking then.
func (l *ledger) deaf(now time.Time, r *record) bool {
	if l.brake.on || !r.back.IsZero() || r.dead || !l.anyAnswer.Before(r.claim.at) {
		return false
	}
	living, silent := 0, 0
	for _, other := range l.byName {
		if other.dead || other.Status != Alive && other.Status != Suspect {
			continue
		}
		living++
		if other == r || other.claim != nil && other.claim.deaf {
			silent++
		}
	}
	if living < brakeLeast {
		return false
	}
	l.ask(now, r)
	r.claim.deaf = true
	for _, other := range l.controls(r, claimPings) {
		l.counts.claims++
		l.ask(now, other)
		l.setStatus(now, other, Suspect)
	}
	if silent >= brakeLeast && 2*silent > living {
		l.despair(now)
	}
	return true
}

// despair: more than half of the others were silent, and so was everybody else.
func (l *ledger) despair(now time.Time) {
	for _, r := range l.byName {
		if r.claim != nil && r.claim.deaf {
			r.claim, r.dead, r.diedAt = nil, true, now
			l.counts.confirmed++
		}
	}
	l.weigh(now)
	for _, r := range l.byName {
		if !r.dead || !r.diedAt.Equal(now) {
			continue
		}
		if l.brake.on {
			l.hold(now, r)
		} else {
			l.fail(now, r)
		}
	}
}
