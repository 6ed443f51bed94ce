package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

// Times and bounds of the rules.
const (
	// A claim is confirmed by this many pings of our own, sent claimPace apart,
	// none of them answered within claimWindow (rule 20), or within two round
	// trips and a bit where the way is known to be longer.
	claimPings  = 3
	claimPace   = 100 * time.Millisecond
	claimWindow = 500 * time.Millisecond
	claimLong   = 2 * time.Second

	// verifyEvery is how often a member that answers, and that gossip calls
	// dead all the same, is asked again: nobody else watches it.
	verifyEvery = 2 * time.Second
	// returnPing is how often a member on its way back is asked; returnLost is
	// for how long it may be silent meanwhile.
	returnPing = time.Second
	returnLost = 3 * time.Second
	// returnLast is how long it has at the end of its hold-down to answer once
	// more.
	returnLast = 500 * time.Millisecond
	lastPing   = 150 * time.Millisecond

	// stallIgnore: claims are put off for this long after this process itself
	// didn't run for a while; accuserDead: and those of an accuser that was
	// itself dead so lately.
	stallIgnore = 500 * time.Millisecond
	accuserDead = 30 * time.Second
	// deafAfter: who heard nobody for this long and hears again was cut off, and
	// asks anew before it finds anybody dead. With four pings a second, a third
	// of them lost, that is once in ten minutes, and costs half a second.
	deafAfter = 1500 * time.Millisecond

	// forceKept is how long an order to drop a member waits for its death.
	forceKept = time.Minute
	// absentAfter is how long after the first contact a member of the snapshot
	// may be unheard of before it is asked.
	absentAfter = 15 * time.Second

	maxMembers = 20_000
	maxGone    = 20_000
	maxAsked   = 16_384
	askedKept  = 5 * time.Second
)

// record is a member and what the rules need of it.
type record struct {
	Member
	life uint64 // of its process

	dead      bool // found dead: Failed, or Suspect under the brake
	settled   bool // the brake is done with this death
	unaccused bool // dead for no other reason than that too many were silent
	diedAt    time.Time
	aliveFrom time.Time // since when it lived, the last time that it did; zero: never

	claim    *claim
	doubt    *doubt
	verifyAt time.Time
	nextPing time.Time
	lastPong time.Time
	back     time.Time // its first answer since it failed; zero: not on its way back
	hold     holddown

	leftLTime   uint64    // Lamport time of its last return: older orders are void
	forcedUntil time.Time // its death counts as having left
	forcePrune  bool
}

// claim is a death that is being confirmed.
type claim struct {
	at, next, until time.Time
	sent, pings     int // of the pings it is asked with
	pace            time.Duration
	controls        []*record // are asked along with it
	deaf            bool      // a whole window has passed, in which others were silent too
	probe           bool      // nobody accuses it: it is asked since others are silent
}

// asked is a ping that may still be answered.
type asked struct {
	r      *record
	c      *contest
	holder bool   // of a contest: asked was the one there first
	answer func() // of a caller of Ping; must not block
	at     time.Time
}

// node is a host as gossip tells of it.
type node struct {
	name string
	addr netip.AddrPort
	meta meta
}

// counts are totals, for the metrics.
type counts struct {
	claims, ignored, refuted, confirmed, brakes, flaps, pings, conflicts uint64
}

// ledger holds the members and the rules that they live by. It is told the
// time, reads no clock, and sends nothing: what is to be done piles up in out.
// One caller at a time.
type ledger struct {
	self                 *record
	started              time.Time
	reconnect, tombstone time.Duration
	holds                holdLimits

	byName   map[string]*record
	byID     map[string]*record
	active   map[*record]struct{} // those that step has something to do for
	gone     map[string]time.Time // IDs that were reaped, pruned or replaced: they count as left
	restored map[string]restored  // by ID: what a view's file said of hosts that nobody spoke of yet
	asked    map[uint64]asked
	contests map[contestKey]*contest

	round     []*record // whom patrol asks next
	patrols   []patrol
	patrolled time.Time

	brake         brake
	clock         uint64 // Lamport's
	seen          ring
	heardAgain    time.Time // when this host last heard others again after it was cut off
	stalled       time.Time // when this process last came to itself after a pause, or heard others again
	contact       time.Time // first contact with another member
	anyAnswer     time.Time // the last answer to a ping, whoever gave it
	conflictUntil time.Time // others say until then that this host is in a conflict
	counts        counts
	out           outbox
}

// restored is a life told by a file.
type restored struct {
	status Status
	since  time.Time
}

func newLedger(self *record, now time.Time, reconnect, tombstone time.Duration, holds holdLimits) *ledger {
	return &ledger{
		self: self, started: now, reconnect: reconnect, tombstone: tombstone, holds: holds,
		byName: make(map[string]*record), byID: make(map[string]*record), active: make(map[*record]struct{}),
		gone: make(map[string]time.Time), restored: make(map[string]restored),
		asked: make(map[uint64]asked), contests: make(map[contestKey]*contest), out: newOutbox(),
	}
}

// life is what is known of a host by its ID.
func (l *ledger) life(id string) Status {
	if id == l.self.ID {
		return l.self.Status
	}
	if r := l.byID[id]; r != nil && r.Status != NeverSeen {
		return r.Status
	}
	if kept, ok := l.restored[id]; ok {
		return kept.status
	}
	if _, ok := l.gone[id]; ok {
		return Left
	}
	return NeverSeen
}

func (l *ledger) wake(r *record) { l.active[r] = struct{}{} }

// setStatus changes what answers go by.
func (l *ledger) setStatus(now time.Time, r *record, s Status) {
	if r.Status == s {
		return
	}
	r.Status, r.Since = s, now
	l.out.touch(r)
}

func (l *ledger) setTold(now time.Time, r *record, s Status, by string) {
	if r.Told == s && r.ToldBy == by {
		return
	}
	r.Told, r.ToldBy, r.ToldAt = s, by, now
	l.out.touch(r)
}

// add begins a record.
func (l *ledger) add(n node) *record {
	r := &record{life: n.meta.life}
	r.Name, r.Addr, r.Port = n.name, n.addr.Addr(), n.addr.Port()
	r.describe(n.meta)
	l.byName[r.Name], l.byID[r.ID] = r, r
	l.out.touch(r)
	return r
}

// describe takes over what a host says of itself.
func (r *record) describe(m meta) {
	r.life, r.Tags = m.life, m.tags
	r.ID, r.Datacenter = m.tags[tagID], m.tags[tagDatacenter]
}

func (r *record) at() netip.AddrPort { return netip.AddrPortFrom(r.Addr, r.Port) }

// erase forgets a member, whose ID counts as left from now on.
func (l *ledger) erase(now time.Time, r *record) {
	l.unhold(now, r)
	delete(l.brake.held, r)
	if l.byName[r.Name] == r {
		delete(l.byName, r.Name)
	}
	if l.byID[r.ID] == r {
		delete(l.byID, r.ID)
	}
	delete(l.active, r)
	l.bury(now, r.ID)
	r.Status = Left
	l.out.touch(r)
}

// bury remembers that an ID counts as left.
func (l *ledger) bury(now time.Time, id string) {
	delete(l.restored, id)
	l.gone[id] = now
	for len(l.gone) > maxGone {
		oldest, at := "", now
		for id, t := range l.gone {
			if oldest == "" || t.Before(at) {
				oldest, at = id, t
			}
		}
		delete(l.gone, oldest)
	}
}

// joined: gossip says that a host is alive. The name is its own by then as far
// as gossip is concerned; whose the ID is, is settled here.
func (l *ledger) joined(now time.Time, n node) {
	id := n.meta.tags[tagID]
	if n.name == l.self.Name || id == l.self.ID {
		return
	}
	r, other := l.byName[n.name], l.byID[id]
	if other != nil && other != r {
		l.renamed(now, n, other)
		return
	}
	if r != nil && r.ID != id {
		// Another host has the name now, the old one being dead or its address
		// this one's.
		l.out.say(replaced, "node", r.Name, "id", r.ID, "by", id)
		l.erase(now, r)
		r = nil
	}
	if r == nil {
		if len(l.byName) >= maxMembers {
			return
		}
		l.arrive(now, n)
		return
	}
	l.refresh(now, r, n)
}

// arrive adds a host that wasn't known. What a file told of it, or that it had
// left, is overcome as for any other: by its answers.
func (l *ledger) arrive(now time.Time, n node) {
	id := n.meta.tags[tagID]
	was := l.life(id)
	kept, since := l.restored[id], now
	delete(l.restored, id)
	delete(l.gone, id)
	r := l.add(n)
	r.ToldAt, r.Told = now, Alive
	r.leftLTime = l.clock
	switch was {
	case Failed:
		r.Status, r.Since, r.dead, r.settled, r.diedAt = Failed, kept.since, true, true, kept.since
		l.wake(r)
	case Left:
		r.Status, r.Since = Left, since
		l.wake(r)
	default:
		l.revive(now, r)
	}
}

// refresh: a known member is told alive, perhaps with other tags or elsewhere.
func (l *ledger) refresh(now time.Time, r *record, n node) {
	moved := r.at() != n.addr
	if moved {
		l.out.say(movedTo, "node", r.Name, "addr", n.addr, "was", r.at())
		r.Addr, r.Port = n.addr.Addr(), n.addr.Port()
		l.out.touch(r)
	}
	r.describe(n.meta)
	l.setTold(now, r, Alive, "")
	switch {
	case r.Status == NeverSeen, r.Status == Suspect && !r.dead, r.Status == Alive && r.claim != nil:
		if r.claim != nil {
			r.claim = nil
			l.counts.refuted++
		}
		l.revive(now, r)
	case r.Status != Alive:
		r.nextPing = now
		l.wake(r)
	}
}

// updated: a member tells other tags of itself.
func (l *ledger) updated(now time.Time, n node) {
	r := l.byName[n.name]
	if r == nil || r.ID != n.meta.tags[tagID] || r.Told != Alive && r.Told != Suspect {
		l.joined(now, n)
		return
	}
	r.describe(n.meta)
	l.out.touch(r)
	l.out.event(now, Updated, r, "")
}

// left: gossip says that a member is dead, by whom if that is known.
func (l *ledger) left(now time.Time, name, by string) {
	r := l.byName[name]
	if r == nil || r.Told == Left {
		return
	}
	l.setTold(now, r, Failed, by)
	l.accuse(now, r, by)
}

// revive: a member lives.
func (l *ledger) revive(now time.Time, r *record) {
	was, since := r.Status, r.aliveFrom
	r.dead, r.settled, r.unaccused = false, false, false
	r.back, r.HeldUntil, r.forcedUntil = time.Time{}, time.Time{}, time.Time{}
	if was == Alive {
		return
	}
	l.setStatus(now, r, Alive)
	if was == Suspect && !since.IsZero() {
		r.Since = since // it lived all the time
		return
	}
	r.aliveFrom, r.leftLTime = now, l.clock
	l.out.event(now, Joined, r, "")
}

// depart: a member left, or was told out.
func (l *ledger) depart(now time.Time, r *record, by string, prune bool) {
	r.claim, r.doubt, r.dead = nil, nil, false
	r.back, r.HeldUntil, r.forcedUntil = time.Time{}, time.Time{}, time.Time{}
	l.unhold(now, r)
	delete(l.active, r)
	l.setTold(now, r, Left, by)
	if r.Status != Left {
		l.setStatus(now, r, Left)
		l.out.event(now, Gone, r, "")
	}
	if prune {
		l.erase(now, r)
	}
}

// refused: link found the host's port refused for two seconds. That is a
// confirmed claim until the next answered ping.
func (l *ledger) refused(now time.Time, id string) {
	r := l.byID[id]
	if r == nil || r.Status != Alive && r.Status != Suspect || r.dead {
		return
	}
	l.counts.claims++
	r.nextPing = now
	l.verdict(now, r)
}

// restore takes what a file says of a host that nobody spoke of yet.
func (l *ledger) restore(id string, s Status, since time.Time) {
	if id == l.self.ID || s == NeverSeen || l.life(id) != NeverSeen || len(l.restored) >= maxMembers {
		return
	}
	if s == Suspect {
		s = Alive // it wasn't confirmed
	}
	l.restored[id] = restored{status: s, since: since}
	l.out.lives[id] = struct{}{}
}

// answered: a member answered a ping, of ours or of memberlist's.
func (l *ledger) answered(now time.Time, r *record, rtt time.Duration) {
	if !l.anyAnswer.IsZero() && now.Sub(l.anyAnswer) > deafAfter {
		l.stalledUntil(now) // what was asked meanwhile was asked in vain
		l.heardAgain = now
	}
	r.RTT, r.lastPong, l.anyAnswer = rtt, now, now
	r.doubt, r.forcedUntil = nil, time.Time{}
	if r.Told == Suspect {
		l.setTold(now, r, Alive, "")
	}
	if r.claim != nil {
		if !r.claim.probe {
			l.counts.refuted++
		}
		r.claim = nil
		if r.Told == Failed {
			r.verifyAt = now.Add(verifyEvery)
			l.out.calls = append(l.out.calls, r.at())
			l.wake(r)
		}
	}
	switch {
	case r.Status == Failed:
		l.returning(now, r)
	case r.dead: // under the brake: it never was out
		l.revive(now, r)
		l.unhold(now, r)
	case r.Status == Suspect, r.Status == NeverSeen, r.Status == Left && r.Told == Alive:
		l.revive(now, r)
	}
}

// returning: a failed member answers.
func (l *ledger) returning(now time.Time, r *record) {
	switch {
	case r.back.IsZero():
		r.back = now
		r.HeldUntil = r.hold.until(now, l.holds)
		r.nextPing = now.Add(min(returnPing, r.HeldUntil.Sub(now)))
		l.out.touch(r)
		l.out.event(now, Held, r, "")
		l.wake(r)
		if r.Told == Failed {
			l.out.calls = append(l.out.calls, r.at())
		}
	case !now.Before(r.HeldUntil):
		l.revive(now, r)
		if r.Told == Failed {
			r.verifyAt = now.Add(verifyEvery)
			l.wake(r)
		}
	}
}

// pong: somebody answered a ping.
func (l *ledger) pong(now time.Time, m message, at time.Time) {
	a, known := l.asked[m.nonce]
	if !known || m.id == l.self.ID && m.life == l.self.life {
		return
	}
	delete(l.asked, m.nonce)
	rtt := max(at.Sub(a.at), 0)
	switch {
	case a.c != nil:
		a.c.answered(a.holder, m, rtt)
	case a.r.ID != m.id || l.byID[a.r.ID] != a.r:
	default:
		l.answered(now, a.r, rtt)
	}
	if a.answer != nil {
		a.answer()
	}
}

// ping asks a host for a sign of life.
func (l *ledger) ping(now time.Time, name, id string, at netip.AddrPort, a asked) {
	if len(l.asked) >= maxAsked {
		return
	}
	nonce := rand.Uint64()
	a.at = now
	l.asked[nonce] = a
	l.counts.pings++
	l.out.pings = append(l.out.pings, pingTo{nonce: nonce, name: name, id: id, to: at})
}
