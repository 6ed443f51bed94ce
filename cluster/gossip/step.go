package gossip

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// step does what is due. busy says that more will be soon.
func (l *ledger) step(now time.Time) (busy bool) {
	l.patrol(now)
	for r := range l.active {
		if !l.stepMember(now, r) {
			delete(l.active, r)
		}
	}
	for key, c := range l.contests {
		if !l.stepContest(now, c) {
			delete(l.contests, key)
		}
	}
	for nonce, a := range l.asked {
		if now.Sub(a.at) > askedKept {
			delete(l.asked, nonce)
		}
	}
	return len(l.active) > 0 || len(l.contests) > 0
}

// stepMember does what is due for one, and reports whether there will be more.
func (l *ledger) stepMember(now time.Time, r *record) bool {
	switch {
	case r.claim != nil:
		l.stepClaim(now, r)
		return true
	case r.doubt != nil:
		return l.stepDoubt(now, r) || r.dead
	case r.Status == Failed && !r.back.IsZero():
		l.stepReturn(now, r)
		return true
	case r.dead && (r.Status == Suspect || r.Told == Alive || r.Told == Suspect), r.Status == Left && r.Told == Alive:
		// Dead by the brake's leave or by link's word, or back without having
		// said so itself: asked until it answers.
		if !now.Before(r.nextPing) {
			l.pingMember(now, r)
			r.nextPing = now.Add(l.pace())
		}
		return true
	case r.Status == Alive && r.Told == Failed:
		if !now.Before(r.verifyAt) {
			r.verifyAt = now.Add(verifyEvery)
			l.ask(now, r)
		}
		return true
	}
	return false
}

// pace keeps pings to those that don't answer below a hundred a second.
func (l *ledger) pace() time.Duration {
	return max(returnPing, time.Duration(len(l.active))*10*time.Millisecond)
}

func (l *ledger) pingMember(now time.Time, r *record) {
	l.ping(now, r.Name, r.ID, r.at(), asked{r: r})
}

// stepClaim sends the pings of a confirmation and draws its conclusion. When
// this process was held up meanwhile, answers may lie unread: it begins anew.
func (l *ledger) stepClaim(now time.Time, r *record) {
	c := r.claim
	if l.stalled.After(c.at) {
		probe := c.probe
		l.ask(now, r)
		c = r.claim
		c.probe = probe
	}
	if c.sent < c.pings && !now.Before(c.next) {
		if c.sent == 0 && !c.probe {
			c.controls = l.controls(r, claimPings)
		}
		l.pingMember(now, r)
		for _, control := range c.controls {
			l.pingMember(now, control)
		}
		c.sent++
		c.next = c.next.Add(c.pace)
	}
	if c.sent < c.pings || now.Before(c.until) {
		return
	}
	switch {
	case l.deaf(now, r, c.controls, c.at):
	case c.probe:
		r.claim = nil
	default:
		l.verdict(now, r)
	}
}

// stepReturn watches a member that is on its way back. What ends its hold-down
// is an answer (see returning); silence ends the return.
func (l *ledger) stepReturn(now time.Time, r *record) {
	heard := r.lastPong
	if l.stalled.After(heard) {
		heard = l.stalled
	}
	due := !now.Before(r.HeldUntil)
	if now.Sub(heard) > returnLost || due && heard.Before(r.HeldUntil) && now.Sub(r.HeldUntil) > returnLast {
		l.relapse(now, r)
		return
	}
	if now.Before(r.nextPing) {
		return
	}
	l.pingMember(now, r)
	r.nextPing = now.Add(lastPing)
	if left := r.HeldUntil.Sub(now); left > 0 {
		r.nextPing = now.Add(min(returnPing, left))
	}
}

// sweep reaps, forgets, and looks for those of the snapshot that didn't show
// up. It looks at all members: now and then.
func (l *ledger) sweep(now time.Time) {
	for _, r := range l.byName {
		switch {
		case r.Status == Failed && r.back.IsZero() && now.Sub(r.Since) > l.reconnect:
			r.dead = false
			delete(l.active, r)
			l.setTold(now, r, Left, l.self.Name)
			l.setStatus(now, r, Left)
			l.out.event(now, Reaped, r, "")
		case r.Status == Left && r.Told == Left && now.Sub(r.Since) > l.tombstone:
			l.erase(now, r)
		case r.Status == Alive && r.Told == NeverSeen && !l.contact.IsZero() && now.Sub(l.contact) > absentAfter:
			l.setTold(now, r, Failed, l.self.Name)
			l.accuse(now, r, "")
		}
		if r.hold.decay(now, l.holds); r.Flaps != r.hold.flaps {
			r.Flaps = r.hold.flaps
			l.out.touch(r)
		}
	}
}

// expire ends what others said of this host's conflict, when they say so no
// more.
func (l *ledger) expire(now time.Time) {
	if l.self.Conflict == "" || now.Before(l.conflictUntil) {
		return
	}
	for _, c := range l.contests {
		if c.refused && c.holder == l.self {
			return
		}
	}
	l.self.Conflict = ""
	l.out.touch(l.self)
}

// stalledUntil notes that this process was held up, or its host cut off.
func (l *ledger) stalledUntil(now time.Time) { l.stalled = now }

// lost returns members that gossip has lost, in random order, to be called.
func (l *ledger) lost() []*record {
	var out []*record
	for _, r := range l.byName {
		if r.Addr.IsValid() && r.Status != Left && r.Told != Alive && r.Told != Suspect {
			out = append(out, r)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// living returns the other members that gossip has, in random order.
func (l *ledger) living() []*record {
	var out []*record
	for _, r := range l.byName {
		if r.Told == Alive || r.Told == Suspect {
			out = append(out, r)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// members returns all, sorted by name, this host among them.
func (l *ledger) members() []Member {
	out := make([]Member, 0, len(l.byName)+1)
	out = append(out, l.self.Member)
	for _, r := range l.byName {
		out = append(out, r.Member)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}
