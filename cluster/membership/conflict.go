package membership

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	maxConflicts = 64
	// conflictAgain is how often a conflict is looked at again, and both told of it.
	conflictAgain = 30 * time.Second
	// conflictRetry is how soon a newcomer that didn't answer is asked again, and
	// conflictTries how often: it may have been busy with its start, and what it
	// told of itself doesn't come again by itself.
	conflictRetry = time.Second
	conflictTries = 20
	// conflictKept is how long this host believes others that it is in one.
	conflictKept = 3 * conflictAgain
)

// conflictKey names a host that claims what another has.
type conflictKey struct {
	name, id string
	addr     netip.AddrPort
}

// conflict settles who has a name or an ID: both are asked. Who was there first
// keeps it as long as he answers; when only the newcomer does, he takes over.
type conflict struct {
	newcomer Node
	holder   *record
	at, next time.Time
	sent     int

	holds, comes bool // who answered
	refused      bool
	again        time.Time
	tries        int
}

// Conflict: a host claims a name, or an ID, that another has elsewhere.
func (m *Machine) Conflict(now time.Time, n Node) {
	key := conflictKey{name: n.Name, id: n.ID, addr: n.At()}
	holder := m.byName[n.Name]
	if holder == nil || holder.ID == n.ID && holder.At() == n.At() {
		holder = m.byID[n.ID]
	}
	if n.Name == m.self.Name || n.ID == m.self.ID {
		holder = m.self
	}
	if m.conflicts[key] != nil || len(m.conflicts) >= maxConflicts || holder == nil || holder.At() == n.At() && holder.ID == n.ID {
		return
	}
	m.conflicts[key] = &conflict{newcomer: n, holder: holder, at: now, next: now, holds: holder == m.self}
}

// answered notes an answer.
func (c *conflict) answered(holder bool, rtt time.Duration) {
	if holder {
		c.holds = true
		c.holder.RTT = rtt
		return
	}
	c.comes = true
}

// stepConflict asks, and settles it in the end. It reports whether there is more
// to do.
func (m *Machine) stepConflict(now time.Time, c *conflict) bool {
	if c.holder != m.self && m.byID[c.holder.ID] != c.holder {
		return false
	}
	gone := c.holder.gone()
	if gone {
		m.clear(c)
	}
	if now.Before(c.again) && !(gone && c.refused) {
		return true
	}
	if c.refused || m.stalled.After(c.at) || !c.again.IsZero() {
		c.at, c.next, c.sent, c.refused, c.again = now, now, 0, false, time.Time{}
		c.holds, c.comes = c.holder == m.self, false
	}
	if c.sent < confirmPings && !now.Before(c.next) {
		m.pingConflict(now, c)
	}
	if c.holds && c.comes {
		m.refuse(now, c)
		return true
	}
	if c.sent < confirmPings || now.Sub(c.at) < confirmWindow {
		return true
	}
	if c.tries++; !c.comes && c.tries < conflictTries {
		c.again = now.Add(conflictRetry)
		return true
	}
	m.resolve(now, c)
	if c.comes && !c.holds && c.holder.ID != c.newcomer.ID && c.tries < conflictTries {
		// Gossip may not call the old one dead yet, and turns the newcomer away until
		// then: it is called again until it has taken over.
		c.again = now.Add(conflictRetry)
		return true
	}
	return false
}

func (m *Machine) pingConflict(now time.Time, c *conflict) {
	n := c.newcomer
	m.ping(now, n.Name, n.ID, n.At(), asked{c: c})
	if c.holder != m.self {
		m.ping(now, c.holder.Name, c.holder.ID, c.holder.At(), asked{c: c, holder: true})
	}
	c.sent++
	c.next = now.Add(confirmPace)
}

// resolve: not both of them live.
func (m *Machine) resolve(now time.Time, c *conflict) {
	m.clear(c)
	if c.holds || !c.comes {
		return
	}
	if c.holder.ID == c.newcomer.ID {
		m.move(now, c.holder, c.newcomer)
	} else {
		m.counts.Suspicions++
		m.declareDead(now, c.holder)
	}
	m.want.Syncs = append(m.want.Syncs, c.newcomer.At())
}

// clear: nobody disturbs who has the name and the ID.
func (m *Machine) clear(c *conflict) {
	if c.holder.Conflict != "" {
		c.holder.Conflict = ""
		m.touch(c.holder)
	}
}

// move: a host answers elsewhere, or by another name, and no longer where it
// was. Gossip will follow once it has called the old one dead.
func (m *Machine) move(now time.Time, r *record, n Node) {
	if r.Name != n.Name {
		m.rename(now, r, n)
		return
	}
	m.emit(movedTo, "node", r.Name, "addr", n.At(), "was", r.At())
	m.describe(r, n)
	m.answered(now, r, r.RTT)
}

// renamed: gossip has a host whose ID another name has.
func (m *Machine) renamed(now time.Time, n Node, other *record) {
	here := other.At() == n.At()
	switch {
	case here && n.Life < other.Life:
		// Somebody tells of its old name still.
	case here, other.dead, other.Status == Left:
		m.rename(now, other, n)
	default:
		m.Conflict(now, n)
	}
}

// rename replaces a member's name at once; what was known of its life stays.
func (m *Machine) rename(now time.Time, r *record, n Node) {
	if old := m.byName[n.Name]; old != nil && old != r {
		m.emit(replaced, "node", old.Name, "id", old.ID, "by", r.ID)
		m.erase(now, old)
	}
	m.emit(renamedTo, "node", n.Name, "was", r.Name, "id", r.ID)
	m.touch(r)
	delete(m.byName, r.Name)
	r.Name = n.Name
	m.byName[n.Name] = r
	m.refresh(now, r, n)
	m.touch(r)
}

// refuse: both live, so the newcomer is refused; both are told.
func (m *Machine) refuse(now time.Time, c *conflict) {
	c.refused, c.again = true, now.Add(conflictAgain)
	words := c.words()
	switch {
	case c.holder != m.self:
		if c.holder.Conflict != words {
			m.counts.Conflicts++
			c.holder.Conflict = words
			m.touch(c.holder)
			m.log(claimedBoth, c.holder, "err", words)
		}
		m.notify(c.holder.At(), c.holder.Name, c.holder.ID, words)
	case now.After(m.conflictUntil):
		m.conflicted(words)
	}
	m.notify(c.newcomer.At(), c.newcomer.Name, c.newcomer.ID, words)
}

func (m *Machine) notify(to netip.AddrPort, name, id, words string) {
	msg := Message{Kind: MessageNotice, Name: name, ID: id, From: m.self.Name, Text: words}
	m.want.Sends = append(m.want.Sends, Send{to, msg})
}

// words says what is wrong and what to do.
func (c *conflict) words() string {
	h, n, id := c.holder, c.newcomer, c.newcomer.ID
	if h.ID == id {
		return fmt.Sprintf("node ID %s is used by two hosts, %q at %s, which keeps it, and %q at %s, which is refused: one is a clone of the other; remove node-id from the data_dir of the clone and restart it",
			id, h.Name, h.At(), n.Name, n.At())
	}
	return fmt.Sprintf("node name %q is used by two hosts, node ID %s at %s, which keeps it, and node ID %s at %s, which is refused: set another node_name on one of them",
		h.Name, h.ID, h.At(), id, n.At())
}

// notice: others say that this host is in a conflict.
func (m *Machine) notice(now time.Time, msg Message) {
	if msg.Name == m.self.Name && msg.ID == m.self.ID && msg.Text != "" {
		m.conflicted(msg.Text)
		m.conflictUntil = now.Add(conflictKept)
	}
}

func (m *Machine) conflicted(words string) {
	if m.self.Conflict == words {
		return
	}
	m.counts.Conflicts++
	m.self.Conflict = words
	m.touch(m.self)
	m.emit(inConflict, "err", words)
}

// expireConflict ends what others said of this host's conflict, when they say so
// no more.
func (m *Machine) expireConflict(now time.Time) {
	if m.self.Conflict == "" || now.Before(m.conflictUntil) {
		return
	}
	for _, c := range m.conflicts {
		if c.refused && c.holder == m.self {
			return
		}
	}
	m.self.Conflict = ""
	m.touch(m.self)
}

// InConflict reports whether a host's name or ID is that of a living one
// elsewhere.
func (t *Table) InConflict(n *Node) bool {
	if n.Name == t.self.Name || n.ID == t.self.ID {
		return true
	}
	for _, known := range []*Member{t.ByName(n.Name), t.ByID(n.ID)} {
		if known != nil && known.At() != n.At() && !known.gone() {
			return true
		}
	}
	return false
}
