package httpapi

import "time"

// Member is one member of the gossip pool, in the form of /v1/agent/members.
type Member struct {
	Name        string
	Addr        string
	Port        uint16
	Tags        map[string]string
	Status      MemberStatus
	ProtocolMin uint8
	ProtocolMax uint8
	ProtocolCur uint8
	DelegateMin uint8
	DelegateMax uint8
	DelegateCur uint8

	// Detail is what /v1/meibo/members tells besides; Consul's clients never see it.
	Detail MemberDetail `json:"-" bexpr:"-"`
}

// MemberStatus is a member's state, numbered as Serf does.
type MemberStatus int

// The states of a member.
const (
	MemberNone MemberStatus = iota
	MemberAlive
	MemberLeaving
	MemberLeft
	MemberFailed
)

// String names the state as Serf does.
func (s MemberStatus) String() string {
	switch s {
	case MemberAlive:
		return "alive"
	case MemberLeaving:
		return "leaving"
	case MemberLeft:
		return "left"
	case MemberFailed:
		return "failed"
	}
	return "none"
}

// MemberDetail is what this host makes of a member. The states are "never seen", "alive",
// "suspect", "failed" and "left".
type MemberDetail struct {
	ID    string    // node ID
	State string    // what answers and the catalog go by: confirmed, held down
	Since time.Time // of State

	Told   string // what gossip says at this moment
	ToldBy string // the member who said so, by name; empty: not known
	ToldAt time.Time

	HeldUntil time.Time     // a return does not count before; zero: not held
	Flaps     int           // how often it went and came lately
	RTT       time.Duration // of the last ping that was answered; 0: unknown
	Conflict  string        // what is wrong with it, in words; empty: nothing
	History   string        // of a server: the history it leads or follows, its first digits
}

// Standing is how a host stands in its cluster.
type Standing struct {
	Braking bool // the mass-failure guard is on: this host suspects itself and takes out nobody
	Merging bool // a living member hasn't synced yet with the catalog's present history

	History   string // of the view; empty: none yet
	Index     uint64 // of the view in that history, as clients see it
	Confirmed time.Time
	Stale     bool // no server with a leader has confirmed the view lately

	Server      string    // address of the server whose stream feeds the view; empty: none
	ServerSince time.Time // of the stream
}
