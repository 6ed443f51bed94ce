package gossip

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

// Member is one host of the cluster.
type Member struct {
	ID, Name, Datacenter string
	Addr                 netip.Addr // where it gossips
	Port                 uint16
	Tags                 map[string]string // shared: not to be changed

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

	RTT      time.Duration // of the last answered ping; 0 if unknown
	Conflict string        // what is wrong with it and what to do, in words; "" if nothing
}

// EventKind says what happened to a member.
type EventKind uint8

// Kinds of events.
const (
	Joined   EventKind = iota + 1 // new, or back
	Gone                          // left on purpose, or was forced out
	Died                          // confirmed dead
	Updated                       // other tags or another address
	Reaped                        // failed for so long that it counts as left
	Conflict                      // two hosts claim one name or one ID; Text says which
	Held                          // back, and not to be believed before Member.HeldUntil
)

// Event is a change of a member.
type Event struct {
	Kind   EventKind
	Member Member
	Text   string // of a conflict
	At     time.Time
}
