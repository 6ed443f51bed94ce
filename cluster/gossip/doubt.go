package gossip

import (
	"math/rand/v2"
	"time"
)

// memberlist's way to a death is long: one host after the other has to come to
// probe the dead one by chance. So whoever finds a member silent tells it (a
// doubt), and all who hear it ask that member themselves, and tell in turn if it
// is silent for them too. Two such others beside this host are a claim; when all
// pings of this host went unanswered for doubtLong meanwhile, it is a confirmed
// one. A single answer ends it all. What this shortens is the time to a claim by
// a second or two; where doubts don't come through, memberlist's word does.
const (
	// doubtLong, with the patrolWait before it, leaves a daemon that is restarted
	// within two seconds half a second more to answer.
	doubtLong    = 2250 * time.Millisecond
	doubtPace    = 200 * time.Millisecond // after the first three pings
	doubtKept    = 10 * time.Second       // after the last that was heard
	doubtersHeed = 2                      // others who make a claim
	doubtersMost = 4                      // of whom more needn't be told
	// Beside memberlist's probes, each host asks the others in turn, a ping each
	// patrolEvery. Who doesn't answer within patrolWait is asked on; five more
	// pings unanswered are a doubt (at 20 % loss each way: one in five minutes).
	patrolEvery  = 250 * time.Millisecond
	patrolWait   = 300 * time.Millisecond
	patrolPings  = 5
	patrolWindow = 700 * time.Millisecond
	// In a large cluster one doubt doesn't have everybody ask, and only so many
	// of those who find it true tell it.
	doubtLarge = 64
	doubtTell  = 8
)

// doubt is a member that others, or memberlist here, found silent.
type doubt struct {
	by          map[string]bool // names
	since, next time.Time       // of the pings; zero: it isn't asked yet
	until       time.Time
	sent        int
	controls    []*record // are asked along with it, in turn
	told        bool
	own         bool // it is this host's alone yet
}

// patrol asks the next of the others, and takes note of who didn't answer.
func (l *ledger) patrol(now time.Time) {
	for len(l.patrols) > 0 && now.Sub(l.patrols[0].at) >= max(patrolWait, l.patrols[0].r.RTT*2) {
		p := l.patrols[0]
		l.patrols = l.patrols[1:]
		if p.r.lastPong.Before(p.at) && l.stalled.Before(p.at) && p.r.steady() && l.byName[p.r.Name] == p.r {
			p.r.doubt = &doubt{by: make(map[string]bool), since: now, next: now, until: now.Add(2 * patrolWindow), own: true}
			l.wake(p.r)
		}
	}
	if now.Sub(l.patrolled) < patrolEvery {
		return
	}
	l.patrolled = now
	if len(l.round) == 0 {
		l.round = l.living()
	}
	for len(l.round) > 0 {
		r := l.round[0]
		l.round = l.round[1:]
		if r.steady() && l.byName[r.Name] == r {
			l.pingMember(now, r)
			l.patrols = append(l.patrols, patrol{r: r, at: now})
			return
		}
	}
}

// patrol is a ping that waits for its answer.
type patrol struct {
	r  *record
	at time.Time
}

// steady reports whether nothing at all is said against a member.
func (r *record) steady() bool {
	return r.Status == Alive && r.Told == Alive && r.claim == nil && r.doubt == nil
}

// suspected: memberlist's probe of a member, by five others too, went
// unanswered.
func (l *ledger) suspected(now time.Time, name string) {
	r := l.byName[name]
	if r == nil {
		return
	}
	l.doubted(now, r, l.self.Name)
	if r.doubt != nil && !r.doubt.told && len(r.doubt.by) <= doubtersMost {
		r.doubt.told = true
		l.intend(doubtMessage, r, false)
	}
}

// doubted notes who finds a member silent.
func (l *ledger) doubted(now time.Time, r *record, by string) {
	if r.dead || r.Told != Alive && r.Told != Suspect || r.Status != Alive && r.Status != Suspect ||
		l.lately(now, by) || now.Sub(l.stalled) < stallIgnore {
		return
	}
	if r.doubt == nil {
		r.doubt = &doubt{by: make(map[string]bool)}
	}
	d := r.doubt
	d.own = false
	if r.Told == Alive {
		l.setTold(now, r, Suspect, by)
	}
	if len(d.by) < doubtersMost || by == l.self.Name {
		d.by[by] = true
	}
	d.until = now.Add(doubtKept)
	if d.since.IsZero() && (len(d.by) > 1 || len(l.byName) <= doubtLarge) {
		d.since, d.next = now, now
	}
	l.wake(r)
}

// stepDoubt asks a doubted member. It reports whether there is more to do.
func (l *ledger) stepDoubt(now time.Time, r *record) bool {
	d := r.doubt
	if !now.Before(d.until) {
		r.doubt = nil
		if r.Told == Suspect {
			l.setTold(now, r, Alive, "")
		}
		return false
	}
	if d.since.IsZero() {
		return true
	}
	if l.stalled.After(d.since) {
		d.since, d.next, d.sent = now, now, 0
	}
	if !now.Before(d.next) {
		if d.sent == 0 {
			d.controls = l.controls(r, claimPings)
		}
		l.pingMember(now, r)
		if n := len(d.controls); n > 0 {
			l.pingMember(now, d.controls[d.sent%n])
		}
		d.sent++
		d.next = now.Add(doubtPace)
		if d.sent < claimPings {
			d.next = now.Add(claimPace)
		}
	}
	if !l.silent(now, r) {
		return true
	}
	if d.own {
		if d.sent >= patrolPings && now.Sub(d.since) >= max(patrolWindow, l.window(r)) {
			l.suspected(now, r.Name)
		}
		return true
	}
	if !d.told {
		d.told = true
		if len(d.by) < doubtersMost && rand.IntN(len(l.byName)) < doubtTell {
			l.intend(doubtMessage, r, false)
		}
	}
	if now.Sub(d.since) >= max(doubtLong, l.window(r)) && l.heeded(r) {
		l.counts.claims++
		if !l.deaf(now, r, d.controls, d.since) {
			l.verdict(now, r)
		}
	}
	return r.doubt != nil
}

// silent reports whether a doubted member left three pings and the time for a
// confirmation unanswered, while others did answer.
func (l *ledger) silent(now time.Time, r *record) bool {
	d := r.doubt
	return d != nil && d.sent >= claimPings && now.Sub(d.since) >= l.window(r) && l.stalled.Before(d.since) &&
		(l.anyAnswer.After(d.since) || len(l.byName) < brakeLeast)
}

// heeded reports whether enough others doubt a member: two, or the only other.
func (l *ledger) heeded(r *record) bool {
	others := len(r.doubt.by)
	if r.doubt.by[l.self.Name] {
		others--
	}
	possible := 0
	for _, other := range l.byName {
		if other != r && !other.dead && other.Status == Alive && other.Told == Alive {
			if possible++; possible == doubtersHeed {
				break
			}
		}
	}
	return possible > 0 && others >= min(possible, doubtersHeed)
}
