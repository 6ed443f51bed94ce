package membership

import (
	"net/netip"
	"strconv"
	"time"
)

// Status is what is known of a member's life.
type Status uint8

// The states, in the order in which they are worse news. Never seen is not
// dead: nobody has said anything of that host yet.
const (
	NeverSeen Status = iota
	Alive
	Suspect // claimed dead, not confirmed
	Failed  // confirmed dead
	Left    // went on purpose, was forced out, or was reaped
)

var statusNames = [...]string{"never seen", "alive", "suspect", "failed", "left"}

// String returns the state in words, as `meibo members` shows it.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return "status " + strconv.Itoa(int(s))
}

// Node is a host as gossip tells of it.
type Node struct {
	ID, Name, Datacenter string
	Addr                 netip.Addr // where it gossips
	Port                 uint16
	Life                 uint64            // of its process: Unix microseconds of its start
	Tags                 map[string]string // shared: not to be changed
	Meta                 string            // Life and Tags as they were told
}

// At is where the host gossips.
func (n *Node) At() netip.AddrPort { return netip.AddrPortFrom(n.Addr, n.Port) }

// Member is one host of the cluster.
type Member struct {
	Node

	// Status is what answers and catalog go by: confirmed, held down. Since is
	// when it became so.
	Status Status
	Since  time.Time

	// Told is what gossip says at this moment, confirmed or not, by whom if
	// that is known (a member's name), and since when.
	Told   Status
	ToldBy string
	ToldAt time.Time

	// HeldUntil is when a member that is back will be Alive again, if it stays
	// so; zero if it isn't on its way back. Flaps is how often it went lately.
	HeldUntil time.Time
	Flaps     int

	RTT      time.Duration // of a lately answered ping; 0 if unknown
	Conflict string        // what is wrong with it and what to do, in words; "" if nothing
}

// Lives reports whether answers take the member for alive.
func (m *Member) Lives() bool { return m.Status == Alive || m.Status == Suspect }

// InTouch reports whether gossip has the member, and tells it what it tells all.
func (m *Member) InTouch() bool { return m.Told == Alive || m.Told == Suspect }

// Lost reports whether gossip has lost a member that may live.
func (m *Member) Lost() bool { return m.Status != Left && !m.InTouch() }

// gone reports whether the member's name and ID may be taken over.
func (m *Member) gone() bool { return m.Status == Failed || m.Status == Left }

// Life is what is known of a host's life.
type Life struct {
	ID, Name string // the name may be unknown
	Status   Status
	Since    time.Time
}
