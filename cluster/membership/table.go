package membership

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// The tags that the rules know; others may be told beside them.
const (
	TagID         = "id"
	TagDatacenter = "dc"
	TagRole       = "role" // by which a table lists members
)

// The orders in which a table lists its members.
const (
	byName = iota
	byID
	byRole
	orders
)

var compare = [orders]func(a, b *Member) int{
	byName: func(a, b *Member) int { return strings.Compare(a.Name, b.Name) },
	byID:   func(a, b *Member) int { return strings.Compare(a.ID, b.ID) },
	byRole: func(a, b *Member) int {
		return cmp.Or(strings.Compare(a.Tags[TagRole], b.Tags[TagRole]), strings.Compare(a.Name, b.Name))
	},
}

// Table is the members at one moment, and what is known of the lives of hosts
// that are none. It is never changed, nor is anything it returns to be. The zero
// table knows nobody.
type Table struct {
	members [orders][]*Member
	self    *Member
	lives   map[string]Life // by ID, of no members
	guarded bool
	clock   uint64
	changed chan struct{}
}

// Members are all members, sorted by name, this host among them.
func (t *Table) Members() []*Member { return t.members[byName] }

// Self is this host.
func (t *Table) Self() *Member { return t.self }

// ByName returns the member of a name; nil: there is none.
func (t *Table) ByName(name string) *Member {
	at, ok := slices.BinarySearchFunc(t.members[byName], name, func(m *Member, name string) int { return strings.Compare(m.Name, name) })
	if !ok {
		return nil
	}
	return t.members[byName][at]
}

// ByID returns the member with a node ID; nil: there is none.
func (t *Table) ByID(id string) *Member {
	at, ok := slices.BinarySearchFunc(t.members[byID], id, func(m *Member, id string) int { return strings.Compare(m.ID, id) })
	if !ok {
		return nil
	}
	return t.members[byID][at]
}

// Role returns the members of which the tag "role" has the value, sorted by name.
func (t *Table) Role(role string) []*Member {
	list := t.members[byRole]
	from, _ := slices.BinarySearchFunc(list, role, func(m *Member, role string) int { return strings.Compare(m.Tags[TagRole], role) })
	n, _ := slices.BinarySearchFunc(list[from:], role, func(m *Member, role string) int {
		if m.Tags[TagRole] == role {
			return -1
		}
		return 1
	})
	return list[from : from+n : from+n]
}

// Life is what is known of a host's life. This host lives; reaped counts as Left.
func (t *Table) Life(id string) Status {
	if m := t.ByID(id); m != nil && m == t.self {
		return Alive
	} else if m != nil && m.Status != NeverSeen {
		return m.Status
	}
	return t.lives[id].Status
}

// Lives is what is known of all hosts' lives, members or not.
func (t *Table) Lives() []Life {
	lives := make([]Life, 0, len(t.Members())+len(t.lives))
	for _, m := range t.Members() {
		if m.Status != NeverSeen {
			lives = append(lives, Life{ID: m.ID, Name: m.Name, Status: m.Status, Since: m.Since})
		}
	}
	for _, l := range t.lives {
		lives = append(lives, l)
	}
	return lives
}

// Restored returns a table that also has what is known from elsewhere of hosts
// that this one has never seen.
func (t *Table) Restored(lives []Life) *Table {
	next := *t
	next.lives = make(map[string]Life, len(t.lives)+len(lives))
	maps.Copy(next.lives, t.lives)
	for _, l := range lives {
		if t.Life(l.ID) == NeverSeen {
			next.lives[l.ID] = l
		}
	}
	return &next
}

// Guarded reports whether so many members failed at once that this host suspects
// itself, and takes out nobody.
func (t *Table) Guarded() bool { return t.guarded }

// Changed is closed when there is a table that shows something else.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// PushPull is what this host tells of those that are gone.
func (t *Table) PushPull(now time.Time) PushPull {
	s := PushPull{From: t.self.Name, Clock: t.clock}
	for _, m := range t.Members() {
		held := !m.HeldUntil.IsZero() // back, and not believed yet: no witness of its return
		if m.gone() && (!m.InTouch() || held) && m != t.self && m.Addr.IsValid() {
			s.Gone = append(s.Gone, Departed{Node: m.Node, Status: m.Status, Ago: now.Sub(m.Since)})
		}
	}
	return s
}

// Table returns the members as they were last published. It may be called at any
// time.
func (m *Machine) Table() *Table { return m.table.Load() }

// touch notes that a record has changed.
func (m *Machine) touch(r *record) {
	m.touched[r], m.want.Changed = struct{}{}, true
}

// Publish makes the table show what has changed, and returns what is to be done.
func (m *Machine) Publish() Wants {
	w := m.want
	m.want = Wants{}
	old := m.table.Load()
	if len(m.touched)+len(m.lives) == 0 && old.guarded == m.guard.on && old.clock == m.clock {
		return w
	}
	next := *old
	next.guarded, next.clock = m.guard.on, m.clock
	if len(m.lives) > 0 {
		next.lives = maps.Clone(m.restored)
	}
	if len(m.touched) > 0 {
		for i, list := range next.members {
			next.members[i] = append(make([]*Member, 0, len(list)+len(m.touched)), list...)
		}
	}
	for r := range m.touched {
		shown := r.shown
		if r.shown = nil; r == m.self || m.knows(r) {
			now := r.Member
			r.shown = &now
		}
		next.replace(shown, r.shown)
		m.lives[r.ID] = struct{}{}
	}
	next.self = m.self.shown
	w.Changed = w.Changed || old.guarded != next.guarded
	if w.Changed {
		next.changed = make(chan struct{})
	}
	m.table.Store(&next)
	if w.Changed {
		close(old.changed)
	}
	for id := range m.lives {
		if old.Life(id) != next.Life(id) {
			w.Lives = append(w.Lives, id)
		}
	}
	clear(m.touched)
	clear(m.lives)
	return w
}

// replace puts a member in the place of another, either of which may be nil.
func (t *Table) replace(old, now *Member) {
	for i, list := range t.members {
		at := 0
		if old != nil {
			at, _ = slices.BinarySearchFunc(list, old, compare[i])
			for list[at] != old { // another may have its name or ID already
				at++
			}
		}
		switch {
		case old != nil && now != nil && compare[i](old, now) == 0:
			list[at] = now
			continue
		case old != nil:
			list = slices.Delete(list, at, at+1)
		}
		if now != nil {
			at, _ = slices.BinarySearchFunc(list, now, compare[i])
			list = slices.Insert(list, at, now)
		}
		t.members[i] = list
	}
}
