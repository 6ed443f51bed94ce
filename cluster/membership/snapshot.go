package membership

import (
	"net/netip"
	"time"
)

// Snapshot is the list of members as it is kept over a restart.
type Snapshot struct {
	Version int
	Clock   uint64
	Left    bool                 `json:",omitempty"` // this host left on purpose
	Members []SnapshotMember     `json:",omitempty"`
	Gone    map[string]time.Time `json:",omitempty"` // IDs that count as left
}

// SnapshotMember is one member of a [Snapshot].
type SnapshotMember struct {
	Name   string
	Addr   netip.AddrPort
	Tags   map[string]string
	Life   uint64
	Status string
	Since  time.Time
}

// Snapshot returns the members as they are to be kept.
func (m *Machine) Snapshot() Snapshot {
	s := Snapshot{Clock: m.clock, Left: m.self.Status == Left, Gone: make(map[string]time.Time)}
	for id, l := range m.restored {
		if l.Status == Left {
			s.Gone[id] = l.Since
		}
	}
	for _, r := range m.byName {
		status := r.Status
		if status == Suspect || status == NeverSeen {
			status = Alive // not confirmed
		}
		s.Members = append(s.Members, SnapshotMember{
			Name: r.Name, Addr: r.At(), Tags: r.Tags, Life: r.Life, Status: status.String(), Since: r.Since,
		})
	}
	return s
}

// Load takes the members of a snapshot: they are what they were, until somebody
// says otherwise.
func (m *Machine) Load(s Snapshot) {
	m.clock = max(m.clock, s.Clock)
	for id, at := range s.Gone {
		m.recordLife(Life{ID: id, Status: Left, Since: at})
	}
	for _, k := range s.Members {
		n := Node{Name: k.Name, Addr: k.Addr.Addr(), Port: k.Addr.Port(), Life: k.Life, Tags: k.Tags, ID: k.Tags[TagID], Datacenter: k.Tags[TagDatacenter]}
		if n.Name == m.self.Name || n.ID == m.self.ID || m.byName[n.Name] != nil || m.byID[n.ID] != nil {
			continue
		}
		r := m.add(n)
		m.dropLife(n.ID)
		r.Since = k.Since
		switch k.Status {
		case Failed.String():
			m.recall(r, k.Since)
		case Left.String():
			r.Status, r.Told = Left, Left
		default:
			r.Status, r.aliveFrom = Alive, k.Since
		}
	}
}
