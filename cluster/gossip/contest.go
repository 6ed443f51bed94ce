package gossip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

const (
	maxContests = 64
	// contestAgain is how often a conflict is looked at again, and both told of it.
	contestAgain = 30 * time.Second
	// contestRetry is how soon a newcomer that didn't answer is asked again, and
	// contestTries how often: it may have been busy with its start, and what it
	// told of itself doesn't come again by itself.
	contestRetry = time.Second
	contestTries = 20
	// conflictKept is how long this host believes others that it is in one.
	conflictKept = 3 * contestAgain
)

// contestKey names a host that claims what another has.
type contestKey struct {
	name, id string
	addr     netip.AddrPort
}

// contest settles who has a name or an ID: both are asked. Who was there first
// keeps it as long as he answers; when only the newcomer does, he takes over.
type contest struct {
	newcomer node
	holder   *record
	at, next time.Time
	sent     int

	holds, comes bool // who answered
	life         uint64
	refused      bool
	again        time.Time
	tries        int
}

// contested: a host claims a name, or an ID, that another has elsewhere.
func (l *ledger) contested(now time.Time, n node) {
	id := n.meta.tags[tagID]
	key := contestKey{name: n.name, id: id, addr: n.addr}
	holder := l.byName[n.name]
	if holder == nil || holder.ID == id && holder.at() == n.addr {
		holder = l.byID[id]
	}
	if n.name == l.self.Name || id == l.self.ID {
		holder = l.self
	}
	if l.contests[key] != nil || len(l.contests) >= maxContests || holder == nil || holder.at() == n.addr && holder.ID == id {
		return
	}
	l.contests[key] = &contest{newcomer: n, holder: holder, at: now, next: now, holds: holder == l.self}
}

// answered notes an answer.
func (c *contest) answered(holder bool, m message, rtt time.Duration) {
	if holder {
		c.holds = true
		c.holder.RTT = rtt
		return
	}
	c.comes, c.life = true, m.life
}

// stepContest asks, and settles it in the end. It reports whether there is more
// to do.
func (l *ledger) stepContest(now time.Time, c *contest) bool {
	if c.holder != l.self && l.byID[c.holder.ID] != c.holder {
		return false
	}
	gone := c.holder.Status == Failed || c.holder.Status == Left
	if gone {
		l.settled(c)
	}
	if now.Before(c.again) && !(gone && c.refused) {
		return true
	}
	if c.refused || l.stalled.After(c.at) || !c.again.IsZero() {
		c.at, c.next, c.sent, c.refused, c.again = now, now, 0, false, time.Time{}
		c.holds, c.comes = c.holder == l.self, false
	}
	if c.sent < claimPings && !now.Before(c.next) {
		l.pingContest(now, c)
	}
	if c.holds && c.comes {
		l.refuse(now, c)
		return true
	}
	if c.sent < claimPings || now.Sub(c.at) < claimWindow {
		return true
	}
	if c.tries++; !c.comes && c.tries < contestTries {
		c.again = now.Add(contestRetry)
		return true
	}
	l.uncontested(now, c)
	if c.comes && !c.holds && c.holder.ID != c.newcomer.meta.tags[tagID] && c.tries < contestTries {
		// Gossip may not call the old one dead yet, and turns the newcomer away until
		// then: it is called again until it has taken over.
		c.again = now.Add(contestRetry)
		return true
	}
	return false
}

func (l *ledger) pingContest(now time.Time, c *contest) {
	n := c.newcomer
	l.ping(now, n.name, n.meta.tags[tagID], n.addr, asked{c: c})
	if c.holder != l.self {
		l.ping(now, c.holder.Name, c.holder.ID, c.holder.at(), asked{c: c, holder: true})
	}
	c.sent++
	c.next = now.Add(claimPace)
}

// uncontested: not both of them live.
func (l *ledger) uncontested(now time.Time, c *contest) {
	l.settled(c)
	if c.holds || !c.comes {
		return
	}
	if c.holder.ID == c.newcomer.meta.tags[tagID] {
		l.move(now, c.holder, c.newcomer)
	} else {
		l.counts.claims++
		l.verdict(now, c.holder)
	}
	l.out.calls = append(l.out.calls, c.newcomer.addr)
}

// settled: nobody disturbs who has the name and the ID.
func (l *ledger) settled(c *contest) {
	if c.holder.Conflict != "" {
		c.holder.Conflict = ""
		l.out.touch(c.holder)
	}
}

// move: a host answers elsewhere, or by another name, and no longer where it
// was. Gossip will follow once it has called the old one dead.
func (l *ledger) move(now time.Time, r *record, n node) {
	if r.Name != n.name {
		l.rename(now, r, n)
		return
	}
	l.out.say(movedTo, "node", r.Name, "addr", n.addr, "was", r.at())
	r.Addr, r.Port = n.addr.Addr(), n.addr.Port()
	r.describe(n.meta)
	l.out.touch(r)
	l.answered(now, r, r.RTT)
}

// renamed: gossip has a host whose ID another name has.
func (l *ledger) renamed(now time.Time, n node, other *record) {
	here := other.at() == n.addr
	switch {
	case here && n.meta.life < other.life:
		// Somebody tells of its old name still.
	case here, other.dead, other.Status == Left:
		l.rename(now, other, n)
	default:
		l.contested(now, n)
	}
}

// rename replaces a member's name at once; what was known of its life stays.
func (l *ledger) rename(now time.Time, r *record, n node) {
	if old := l.byName[n.name]; old != nil && old != r {
		l.out.say(replaced, "node", old.Name, "id", old.ID, "by", r.ID)
		l.erase(now, old)
	}
	l.out.say(renamedTo, "node", n.name, "was", r.Name, "id", r.ID)
	l.out.touch(r)
	delete(l.byName, r.Name)
	r.Name = n.name
	l.byName[n.name] = r
	l.refresh(now, r, n)
	l.out.touch(r)
}

// refuse: both live, so the newcomer is refused; both are told.
func (l *ledger) refuse(now time.Time, c *contest) {
	c.refused, c.again = true, now.Add(contestAgain)
	words := c.words()
	if c.holder == l.self {
		if now.After(l.conflictUntil) {
			l.conflicted(now, words)
		}
	} else {
		if c.holder.Conflict != words {
			l.counts.conflicts++
			c.holder.Conflict = words
			l.out.touch(c.holder)
			l.out.event(now, Conflict, c.holder, words)
		}
		l.notify(c.holder.at(), c.holder.Name, c.holder.ID, words)
	}
	l.notify(c.newcomer.addr, c.newcomer.name, c.newcomer.meta.tags[tagID], words)
}

func (l *ledger) notify(to netip.AddrPort, name, id, words string) {
	m := message{kind: noticeMessage, name: name, id: id, from: l.self.Name, words: words}
	l.out.tells = append(l.out.tells, tellTo{to: to, m: m})
}

// words says what is wrong and what to do.
func (c *contest) words() string {
	h, n, id := c.holder, c.newcomer, c.newcomer.meta.tags[tagID]
	if h.ID == id {
		return fmt.Sprintf("node ID %s is used by two hosts, %q at %s, which keeps it, and %q at %s, which is refused: one is a clone of the other; remove node-id from the data_dir of the clone and restart it",
			id, h.Name, h.at(), n.name, n.addr)
	}
	return fmt.Sprintf("node name %q is used by two hosts, node ID %s at %s, which keeps it, and node ID %s at %s, which is refused: set another node_name on one of them",
		h.Name, h.ID, h.at(), id, n.addr)
}

// notice: others say that this host is in a conflict.
func (l *ledger) notice(now time.Time, m message) {
	if m.name == l.self.Name && m.id == l.self.ID && m.words != "" {
		l.conflicted(now, m.words)
		l.conflictUntil = now.Add(conflictKept)
	}
}

func (l *ledger) conflicted(now time.Time, words string) {
	if l.self.Conflict == words {
		return
	}
	l.counts.conflicts++
	l.self.Conflict = words
	l.out.touch(l.self)
	l.out.event(now, Conflict, l.self, words)
	l.out.lines = append(l.out.lines, line{level: slog.LevelError, text: "gossip: this host is in conflict with another", args: []any{"err", words}})
}
