package membership

import (
	"math/rand/v2"
	"time"
)

// Gossip's way to a death is long: one host after the other has to come to probe
// the dead one by chance. So whoever finds a member silent tells it (a suspect),
// and all who hear it ask that member themselves, and tell in turn if it is
// silent for them too. Two such others beside this host are a suspicion; when all
// pings of this host went unanswered for suspectLong meanwhile, it is a confirmed
// one. A single answer ends it all. What this shortens is the time to a suspicion
// by a second or two; where these don't come through, gossip's word does.
const (
	// suspectLong, with the probeWait before it, leaves a daemon that is restarted
	// within two seconds half a second more to answer.
	suspectLong    = 2250 * time.Millisecond
	suspectPace    = 200 * time.Millisecond // after the first three pings
	suspectKept    = 10 * time.Second       // after the last that was heard
	accusersNeeded = 2                      // others who make a suspicion
	accusersMost   = 4                      // of whom more needn't be told
	// Beside gossip's own probes, each host asks the others in turn, probeEach of them
	// each probeEvery: together, so that their answers wake this host once. Who doesn't answer within probeWait is asked on; five more
	// pings unanswered make it a suspect (at 20 % loss each way: one in five minutes).
	probeEvery  = 500 * time.Millisecond
	probeEach   = 2
	probeEarly  = 50 * time.Millisecond // that a turn may come
	probeWait   = 300 * time.Millisecond
	probePings  = 5
	probeWindow = 700 * time.Millisecond
	// In a large cluster one host's word doesn't have everybody ask, and only so many
	// of those who find it true tell it.
	suspectLarge = 64
	suspectTell  = 8
)

// suspect is a member that others, or gossip here, found silent.
type suspect struct {
	by          map[string]bool // names
	since, next time.Time       // of the pings; zero: it isn't asked yet
	until       time.Time
	sent        int
	controls    []*record // are asked along with it, in turn
	told        bool
	own         bool // it is this host's alone yet
}

// probeNext asks the next of the others, and takes note of who didn't answer.
func (m *Machine) probeNext(now time.Time) {
	for len(m.probes) > 0 && now.Sub(m.probes[0].at) >= max(probeWait, m.probes[0].r.RTT*2) {
		p := m.probes[0]
		m.probes = m.probes[1:]
		if p.r.lastPong.Before(p.at) && m.stalled.Before(p.at) && p.r.steady() && m.knows(p.r) {
			p.r.suspected = &suspect{by: make(map[string]bool), since: now, next: now, until: now.Add(2 * probeWindow), own: true}
			m.wake(p.r)
		}
	}
	if now.Sub(m.probed) < probeEvery-probeEarly {
		return
	}
	m.probed = now
	if len(m.round) == 0 {
		m.round = m.inTouch()
	}
	for asked := 0; len(m.round) > 0 && asked < probeEach; {
		r := m.round[0]
		m.round = m.round[1:]
		if r.steady() && m.knows(r) {
			m.pingMember(now, r)
			m.probes = append(m.probes, probe{r: r, at: now})
			asked++
		}
	}
}

// probe is a ping that waits for its answer.
type probe struct {
	r  *record
	at time.Time
}

// steady reports whether nothing at all is said against a member.
func (r *record) steady() bool {
	return r.Status == Alive && r.Told == Alive && r.suspicion == nil && r.suspected == nil
}

// ProbeFailed: gossip's own probe of a member, by five others too, went
// unanswered.
func (m *Machine) ProbeFailed(now time.Time, name string) {
	r := m.byName[name]
	if r == nil {
		return
	}
	m.suspectedBy(now, r, m.self.Name)
	if r.suspected != nil && !r.suspected.told && len(r.suspected.by) <= accusersMost {
		r.suspected.told = true
		m.intend(MessageSuspect, r, false)
	}
}

// suspectedBy notes who finds a member silent.
func (m *Machine) suspectedBy(now time.Time, r *record, by string) {
	if r.dead || !r.InTouch() || !r.Lives() ||
		m.recentlyDead(now, by) || now.Sub(m.stalled) < stallIgnore {
		return
	}
	if r.suspected == nil {
		r.suspected = &suspect{by: make(map[string]bool)}
	}
	s := r.suspected
	s.own = false
	if r.Told == Alive {
		m.setTold(now, r, Suspect, by)
	}
	if len(s.by) < accusersMost || by == m.self.Name {
		s.by[by] = true
	}
	s.until = now.Add(suspectKept)
	if s.since.IsZero() && (len(s.by) > 1 || len(m.byName) <= suspectLarge) {
		s.since, s.next = now, now
	}
	m.wake(r)
}

// stepSuspect asks a suspect. It reports whether there is more to do.
func (m *Machine) stepSuspect(now time.Time, r *record) bool {
	s := r.suspected
	if !now.Before(s.until) {
		r.suspected = nil
		if r.Told == Suspect {
			m.setTold(now, r, Alive, "")
		}
		return false
	}
	if s.since.IsZero() {
		return true
	}
	if m.stalled.After(s.since) {
		s.since, s.next, s.sent = now, now, 0
	}
	if !now.Before(s.next) {
		if s.sent == 0 {
			s.controls = m.controls(r, confirmPings)
		}
		m.pingMember(now, r)
		if n := len(s.controls); n > 0 {
			m.pingMember(now, s.controls[s.sent%n])
		}
		s.sent++
		s.next = now.Add(suspectPace)
		if s.sent < confirmPings {
			s.next = now.Add(confirmPace)
		}
	}
	if !m.unanswered(now, r) {
		return true
	}
	if s.own {
		if s.sent >= probePings && now.Sub(s.since) >= max(probeWindow, m.window(r)) {
			m.ProbeFailed(now, r.Name)
		}
		return true
	}
	if !s.told {
		s.told = true
		if len(s.by) < accusersMost && rand.IntN(len(m.byName)) < suspectTell {
			m.intend(MessageSuspect, r, false)
		}
	}
	if now.Sub(s.since) >= max(suspectLong, m.window(r)) && m.enoughAccusers(r) {
		m.counts.Suspicions++
		if !m.maybeCutOff(now, r, s.controls, s.since) {
			m.declareDead(now, r)
		}
	}
	return r.suspected != nil
}

// unanswered reports whether a suspect left three pings and the time for a
// confirmation unanswered, while others did answer.
func (m *Machine) unanswered(now time.Time, r *record) bool {
	s := r.suspected
	return s != nil && s.sent >= confirmPings && now.Sub(s.since) >= m.window(r) && m.stalled.Before(s.since) &&
		(m.anyAnswer.After(s.since) || len(m.byName) < guardLeast)
}

// enoughAccusers reports whether enough others find a member silent: two, or the only other.
func (m *Machine) enoughAccusers(r *record) bool {
	others := len(r.suspected.by)
	if r.suspected.by[m.self.Name] {
		others--
	}
	possible := 0
	for _, other := range m.byName {
		if other != r && !other.dead && other.Status == Alive && other.Told == Alive {
			if possible++; possible == accusersNeeded {
				break
			}
		}
	}
	return possible > 0 && others >= min(possible, accusersNeeded)
}
