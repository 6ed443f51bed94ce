package membership

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
)

// Bounds of what is taken from others.
const (
	MaxMembers  = 20_000
	maxRestored = 20_000 // lives of hosts that are no members
	// MaxLeap is what a Lamport clock may be ahead of ours: more is no clock's.
	MaxLeap = 1 << 40
	// restartCalls is how many members compare lists with one whose process began anew.
	restartCalls = 3
	maxAsked     = 16_384 // pings that may still be answered
	askedKept    = 5 * time.Second
)

// record is a member and what the rules need of it.
type record struct {
	Member
	shown *Member // in the table; nil: it isn't there

	dead      bool // found dead: Failed, or Suspect while the guard protects it
	excepted  bool // the guard is done with this death
	unaccused bool // dead for no other reason than that too many were silent
	diedAt    time.Time
	aliveFrom time.Time // since when it lived, the last time that it did; zero: never

	suspicion *suspicion
	suspected *suspect
	verifyAt  time.Time
	nextPing  time.Time
	lastPong  time.Time
	back      time.Time // its first answer since it failed; zero: not on its way back
	hold      holddown
	// lived says of one whose death a file told that somebody who was there
	// meanwhile has it alive again.
	lived bool

	leftLTime   uint64    // Lamport time of its last return: older orders are void
	forcedUntil time.Time // its death counts as having left
	forcePrune  bool
}

// asked is a ping that may still be answered.
type asked struct {
	r      *record
	c      *conflict
	holder bool                // of a conflict: asked was the one there first
	answer func(time.Duration) // of a caller of Ping; must not block
	at     time.Time
}

// Config is what New needs.
type Config struct {
	Self             Node
	ReconnectTimeout time.Duration // a failed member is reaped then
	TombstoneTimeout time.Duration // a left member is forgotten then
	// HoldDown is for how long a member that is back must be steady, at first and
	// at most.
	HoldDown, HoldDownMax time.Duration
}

// Counts are totals, for the metrics.
type Counts struct {
	Suspicions, Ignored, Refuted, Confirmed, Guards, Flaps, Pings, Conflicts uint64
}

// Machine holds the members and the rules that they live by. It is told the
// time, reads no clock, and sends nothing: what is to be done piles up until
// Publish returns it. One caller at a time, [Machine.Table] excepted.
type Machine struct {
	cfg     Config
	self    *record
	started time.Time

	byName    map[string]*record
	byID      map[string]*record
	active    map[*record]struct{} // those that Step has something to do for
	recalled  map[*record]struct{} // those whose death is what a file told
	restored  map[string]Life      // by ID, of no members: told by a file, or Left as they were reaped, pruned or replaced
	asked     map[uint64]asked
	conflicts map[conflictKey]*conflict

	round  []*record // who is probed next
	probes []probe   // that wait for an answer
	probed time.Time

	guard         guard
	clock         uint64 // Lamport's
	seen          seenIntents
	heardAgain    time.Time // when this host last heard others again after it was cut off
	stalled       time.Time // when this process last came to itself after a pause, or heard others again
	contact       time.Time // first contact with another member
	anyAnswer     time.Time // the last answer to a ping, whoever gave it
	conflictUntil time.Time // others say until then that this host is in a conflict
	counts        Counts

	want    Wants
	touched map[*record]struct{} // not in the table as they are
	lives   map[string]struct{}  // IDs in restored that are not in the table as they are
	table   atomic.Pointer[Table]
}

// New makes a machine that knows this host and what is left of an earlier
// table.
func New(now time.Time, cfg Config) *Machine {
	m := &Machine{
		cfg: cfg, started: now, self: &record{aliveFrom: now},
		byName: make(map[string]*record), byID: make(map[string]*record), active: make(map[*record]struct{}), recalled: make(map[*record]struct{}),
		restored: make(map[string]Life), asked: make(map[uint64]asked), conflicts: make(map[conflictKey]*conflict),
		touched: make(map[*record]struct{}), lives: make(map[string]struct{}),
	}
	m.self.Node = cfg.Self
	m.self.Status, m.self.Since, m.self.Told, m.self.ToldAt = Alive, now, Alive, now
	m.table.Store(&Table{changed: make(chan struct{})})
	m.touch(m.self)
	m.Publish()
	return m
}

// Counts returns the totals.
func (m *Machine) Counts() Counts { return m.counts }

// life is what is known of a host by its ID.
func (m *Machine) life(id string) Status {
	if id == m.self.ID {
		return m.self.Status
	}
	if r := m.byID[id]; r != nil && r.Status != NeverSeen {
		return r.Status
	}
	return m.restored[id].Status
}

func (m *Machine) wake(r *record) { m.active[r] = struct{}{} }

// setStatus changes what answers go by.
func (m *Machine) setStatus(now time.Time, r *record, s Status) {
	if r.Status == s {
		return
	}
	m.dropLife(r.ID) // what was told of one never seen
	r.Status, r.Since = s, now
	m.touch(r)
}

func (m *Machine) setTold(now time.Time, r *record, s Status, by string) {
	if r.Told == s && r.ToldBy == by {
		return
	}
	r.Told, r.ToldBy, r.ToldAt = s, by, now
	m.touch(r)
}

// add begins a record.
func (m *Machine) add(n Node) *record {
	r := &record{Member: Member{Node: n}}
	m.byName[r.Name], m.byID[r.ID] = r, r
	m.touch(r)
	return r
}

// knows reports whether a record is a member still.
func (m *Machine) knows(r *record) bool { return m.byName[r.Name] == r }

// erase forgets a member, whose ID counts as left from now on.
func (m *Machine) erase(now time.Time, r *record) {
	m.unprotect(now, r)
	delete(m.guard.protected, r)
	if m.knows(r) {
		delete(m.byName, r.Name)
	}
	if m.byID[r.ID] == r {
		delete(m.byID, r.ID)
	}
	delete(m.active, r)
	delete(m.recalled, r)
	m.recordLife(Life{ID: r.ID, Name: r.Name, Status: Left, Since: now})
	r.Status = Left
	m.touch(r)
}

// recordLife remembers the life of a host that is no member: the tombstone of one
// that was, as a rule.
func (m *Machine) recordLife(l Life) {
	m.restored[l.ID] = l
	m.lives[l.ID] = struct{}{}
	for len(m.restored) > maxRestored {
		oldest := l
		for _, other := range m.restored {
			if other.Since.Before(oldest.Since) {
				oldest = other
			}
		}
		m.dropLife(oldest.ID)
	}
}

func (m *Machine) dropLife(id string) {
	if _, ok := m.restored[id]; ok {
		delete(m.restored, id)
		m.lives[id] = struct{}{}
	}
}

// Alive: gossip says that a host is alive. The name is its own by then as far
// as gossip is concerned; whose the ID is, is settled here.
func (m *Machine) Alive(now time.Time, n Node) {
	if n.Name == m.self.Name || n.ID == m.self.ID {
		return
	}
	r, other := m.byName[n.Name], m.byID[n.ID]
	if other != nil && other != r {
		m.renamed(now, n, other)
		return
	}
	if r != nil && r.ID != n.ID {
		// Another host has the name now, the old one being dead or its address
		// this one's.
		m.emit(replaced, "node", r.Name, "id", r.ID, "by", n.ID)
		m.erase(now, r)
		r = nil
	}
	if r == nil {
		if len(m.byName) >= MaxMembers {
			return
		}
		m.arrive(now, n)
		return
	}
	m.refresh(now, r, n)
}

// arrive adds a host that wasn't known. What a file told of it, or that it had
// left, is overcome as for any other: by its answers.
func (m *Machine) arrive(now time.Time, n Node) {
	was := m.restored[n.ID]
	m.dropLife(n.ID)
	r := m.add(n)
	r.ToldAt, r.Told = now, Alive
	r.leftLTime = m.clock
	switch was.Status {
	case Failed:
		m.recall(r, was.Since)
		m.wake(r)
	case Left:
		r.Status, r.Since = Left, now
		m.wake(r)
	default:
		m.revive(now, r)
	}
}

// recall makes it one that was found dead before this process began.
func (m *Machine) recall(r *record, at time.Time) {
	r.Status, r.Since, r.dead, r.excepted, r.diedAt = Failed, at, true, true, at
	m.recalled[r] = struct{}{}
}

// refresh: a known member is told alive, perhaps with other tags or elsewhere.
func (m *Machine) refresh(now time.Time, r *record, n Node) {
	if r.At() != n.At() {
		m.emit(movedTo, "node", r.Name, "addr", n.At(), "was", r.At())
	}
	m.describe(r, n)
	m.setTold(now, r, Alive, "")
	switch {
	case r.Status == NeverSeen, r.Status == Suspect && !r.dead, r.Status == Alive && r.suspicion != nil:
		if r.suspicion != nil {
			r.suspicion = nil
			m.counts.Refuted++
		}
		m.revive(now, r)
	case r.Status != Alive:
		r.nextPing = now
		m.wake(r)
	}
}

// describe takes over what a host says of itself, and where.
func (m *Machine) describe(r *record, n Node) {
	if r.At() != n.At() || r.Life != n.Life || r.Meta != n.Meta || !maps.Equal(r.Tags, n.Tags) {
		m.touch(r)
	}
	if r.Life != 0 && r.Life < n.Life && rand.IntN(len(m.byName)) < restartCalls {
		// A process that began anew may have met nobody who knows the others: it hears
		// of those that something happens to, and of nobody else.
		m.want.Syncs = append(m.want.Syncs, n.At())
	}
	n.Name = r.Name
	r.Node = n
}

// Updated: a member tells other tags of itself.
func (m *Machine) Updated(now time.Time, n Node) {
	r := m.byName[n.Name]
	if r == nil || r.ID != n.ID || r.Told != Alive && r.Told != Suspect {
		m.Alive(now, n)
		return
	}
	n.Addr, n.Port = r.Addr, r.Port
	m.describe(r, n)
	m.log(updated, r)
}

// Dead: gossip says that a member is dead, by whom if that is known.
func (m *Machine) Dead(now time.Time, name, by string) {
	r := m.byName[name]
	if r == nil || r.Told == Left {
		return
	}
	m.setTold(now, r, Failed, by)
	m.suspect(now, r, by)
}

// revive: a member lives.
func (m *Machine) revive(now time.Time, r *record) {
	was, since := r.Status, r.aliveFrom
	r.dead, r.excepted, r.unaccused, r.lived = false, false, false, false
	delete(m.recalled, r)
	r.back, r.HeldUntil, r.forcedUntil = time.Time{}, time.Time{}, time.Time{}
	if was == Alive {
		return
	}
	m.setStatus(now, r, Alive)
	if was == Suspect && !since.IsZero() {
		r.Since = since // it lived all the time
		return
	}
	r.aliveFrom, r.leftLTime = now, m.clock
	m.log(alive, r)
}

// depart: a member left, or was told out.
func (m *Machine) depart(now time.Time, r *record, by string, prune bool) {
	r.suspicion, r.suspected, r.dead = nil, nil, false
	r.back, r.HeldUntil, r.forcedUntil = time.Time{}, time.Time{}, time.Time{}
	m.unprotect(now, r)
	delete(m.active, r)
	m.setTold(now, r, Left, by)
	if r.Status != Left {
		m.setStatus(now, r, Left)
		m.log(gone, r)
	}
	if prune {
		m.erase(now, r)
	}
}

// LinkRefused: a host's stream was reset and its port has refused to be dialled
// for two seconds. That is a confirmed suspicion until it answers a ping again.
func (m *Machine) LinkRefused(now time.Time, id string) {
	r := m.byID[id]
	if r == nil || r.Status != Alive && r.Status != Suspect || r.dead {
		return
	}
	m.counts.Suspicions++
	r.nextPing = now
	m.declareDead(now, r)
}

// Restore takes what a view's file, or a neighbour's, says of hosts that nobody
// spoke of yet.
func (m *Machine) Restore(lives []Life) {
	for _, l := range lives {
		if l.ID == m.self.ID || l.Status == NeverSeen || m.life(l.ID) != NeverSeen || len(m.restored) >= maxRestored {
			continue
		}
		if l.Status == Left && m.byID[l.ID] != nil {
			continue // gossip tells of it, and has yet to find out: it isn't gone from there
		}
		if l.Status == Suspect {
			l.Status = Alive // it wasn't confirmed
		}
		m.recordLife(l)
	}
}

// SetTags gives this host other tags, which meta encodes.
func (m *Machine) SetTags(tags map[string]string, meta string) {
	m.self.Tags, m.self.Meta = tags, meta
	m.touch(m.self)
}

// Acked: a member answered a ping of gossip's own.
func (m *Machine) Acked(now time.Time, name string, from netip.AddrPort, rtt time.Duration) {
	if r := m.byName[name]; r != nil && r.At() == from {
		m.answered(now, r, rtt)
	}
}

// answered: a member answered a ping.
func (m *Machine) answered(now time.Time, r *record, rtt time.Duration) {
	if !m.anyAnswer.IsZero() && now.Sub(m.anyAnswer) > cutOffAfter {
		m.Stalled(now) // what was asked meanwhile was asked in vain
		m.heardAgain = now
	}
	if r.RTT == 0 {
		m.touched[r] = struct{}{} // of the others, Sweep tells
	}
	r.RTT, r.lastPong, m.anyAnswer = rtt, now, now
	r.suspected, r.forcedUntil = nil, time.Time{}
	if r.Told == Suspect {
		m.setTold(now, r, Alive, "")
	}
	if r.suspicion != nil {
		if !r.suspicion.control {
			m.counts.Refuted++
		}
		r.suspicion = nil
		if r.Told == Failed {
			r.verifyAt = now.Add(verifyEvery)
			m.want.Syncs = append(m.want.Syncs, r.At())
			m.wake(r)
		}
	}
	switch {
	case r.Status == Failed:
		m.returning(now, r)
	case r.dead: // the guard protected it: it never was out
		m.revive(now, r)
		m.unprotect(now, r)
	case r.Status == Suspect, r.Status == NeverSeen, r.Status == Left && r.Told == Alive:
		m.revive(now, r)
	}
}

// Receive takes a message of another host's, which came at the time at.
func (m *Machine) Receive(now time.Time, msg Message, at time.Time) {
	switch msg.Kind {
	case MessagePing:
		if msg.Name == m.self.Name && msg.ID == m.self.ID && msg.Reply.IsValid() {
			pong := Message{Kind: MessagePong, Nonce: msg.Nonce, Name: m.self.Name, ID: m.self.ID, Life: m.self.Life}
			m.want.Sends = append(m.want.Sends, Send{msg.Reply, pong})
		}
	case MessagePong:
		m.pong(now, msg, at)
	case MessageNotice:
		m.notice(now, msg)
	case MessageLeave, MessageForce, MessageSuspect:
		m.intent(now, msg)
	}
}

// pong: somebody answered a ping.
func (m *Machine) pong(now time.Time, msg Message, at time.Time) {
	a, known := m.asked[msg.Nonce]
	if !known || msg.ID == m.self.ID && msg.Life == m.self.Life {
		return
	}
	delete(m.asked, msg.Nonce)
	rtt := max(at.Sub(a.at), 0)
	switch {
	case a.c != nil:
		a.c.answered(a.holder, rtt)
	case a.r.ID != msg.ID || m.byID[a.r.ID] != a.r:
	default:
		m.answered(now, a.r, rtt)
	}
	if a.answer != nil {
		a.answer(rtt)
	}
}

// Ping asks a member for a sign of life, and reports whether there is one of
// that name. answer is called, once, when one comes, and must not block.
func (m *Machine) Ping(now time.Time, name string, answer func(rtt time.Duration)) bool {
	r := m.byName[name]
	if r == nil {
		return false
	}
	m.ping(now, r.Name, r.ID, r.At(), asked{r: r, answer: answer})
	return true
}

// ping asks a host for a sign of life.
func (m *Machine) ping(now time.Time, name, id string, at netip.AddrPort, a asked) {
	if len(m.asked) >= maxAsked {
		return
	}
	msg := Message{Kind: MessagePing, Nonce: rand.Uint64(), Name: name, ID: id, From: m.self.Name, Reply: m.self.At()}
	a.at = now
	m.asked[msg.Nonce] = a
	m.counts.Pings++
	m.want.Sends = append(m.want.Sends, Send{at, msg})
}
