package catalog

import (
	"time"
)

// Version is the version of the command encoding that this program writes.
// It reads that one and all before it.
const Version = 1

// Type names a kind of command in its encoding. Numbers are never reused.
type Type uint8

// The kinds of commands. 16 to 31 are kept for the key/value store, 32 to 47
// for sessions, 48 to 63 for prepared queries, 64 to 79 for ACLs.
const (
	TypeRegister     Type = 1
	TypeDeregister   Type = 2
	TypeBeginHistory Type = 3
	TypeMarkSynced   Type = 4
	TypeForget       Type = 5
	TypeSetAutopilot Type = 6
)

// RequestID makes a retry safe: of several commands with one request ID only
// the first is carried out within [RepliesKept], the others get its reply.
// An empty Client means none.
type RequestID struct {
	Client  string
	Counter uint64
}

// RepliesKept is for how long, measured by the time in the commands, the
// reply to a request is remembered.
const RepliesKept = 5 * time.Minute

// Command is one entry of the replicated log.
type Command struct {
	// Time is the leader's clock when it took the command; the only clock
	// that the state machine has. Kept to the nanosecond, in UTC.
	Time    time.Time
	Request RequestID
	Body    Body
}

// Body is what a command does: one of *Register, *Deregister, *BeginHistory,
// *MarkSynced, *Forget, *SetAutopilot.
type Body interface {
	Type() Type
	// Validate reports, in Consul's words where clients match them, why the
	// command cannot be carried out whatever the state.
	Validate() error
}

// Register adds or changes a node and, on it, at most one service and any
// number of checks. It is Consul's catalog registration.
type Register struct {
	// Node is the node's record. Its indexes and Synced are ignored.
	// Agentless is what the caller says of itself: the catalog API sets it,
	// agents don't; once an agent has answered for a node the mark is gone.
	Node Node `codec:"Node"`
	// SkipNodeUpdate leaves an existing node's record as it is.
	SkipNodeUpdate bool `codec:"SkipNodeUpdate,omitempty"`
	// Service's Node and indexes are ignored.
	Service *Service `codec:"Service,omitempty"`
	// Checks' Node may be empty; ServiceName and ServiceTags are ignored.
	Checks []*Check `codec:"Checks,omitempty"`
}

// Deregister removes a service, a check, or, with neither named, a node with
// all that is on it. What it names need not exist.
type Deregister struct {
	Node      string `codec:"Node"`
	ServiceID string `codec:"ServiceID,omitempty"`
	CheckID   string `codec:"CheckID,omitempty"`
	// NodeID, if not empty, is the ID that the node must have: nothing happens
	// if the name is another's, or nobody's.
	NodeID string `codec:"NodeID,omitempty"`
}

// BeginHistory begins a new history. It is refused when Base would let the
// index that clients see go back, and does nothing if the history it names
// is the present one. See [NextBase].
type BeginHistory struct {
	ID   string `codec:"ID"`
	Base uint64 `codec:"Base"`
	// Provisional is [History.Provisional].
	Provisional bool `codec:"Provisional,omitempty"`
}

// MarkSynced says that the agent of the node has finished a full sync in the
// history, so that what the catalog holds of this node is all there is.
type MarkSynced struct {
	NodeID  string `codec:"NodeID"`
	History string `codec:"History"`
}

// Forget removes a node that nobody confirmed in this history, and has every
// host forget it too, whether the catalog knows it or not.
type Forget struct {
	Node string `codec:"Node"`
}

// SetAutopilot replaces what autopilot does with the servers.
type SetAutopilot struct {
	// Config's indexes are ignored.
	Config Autopilot `codec:"Config"`
	// CAS has the command refused, with [ErrChanged], unless the present
	// configuration has this ModifyIndex; none has 0.
	CAS         bool   `codec:"CAS,omitempty"`
	ModifyIndex uint64 `codec:"ModifyIndex,omitempty"`
}

// Type implements [Body].
func (*Register) Type() Type { return TypeRegister }

// Type implements [Body].
func (*Deregister) Type() Type { return TypeDeregister }

// Type implements [Body].
func (*BeginHistory) Type() Type { return TypeBeginHistory }

// Type implements [Body].
func (*MarkSynced) Type() Type { return TypeMarkSynced }

// Type implements [Body].
func (*Forget) Type() Type { return TypeForget }

// Type implements [Body].
func (*SetAutopilot) Type() Type { return TypeSetAutopilot }

// MaxIndex is the largest index a client may be shown: JSON numbers are
// exact below 2^53.
const MaxIndex = 1<<53 - 1

// NextBase is the base for a history that begins at now: Unix seconds × 2^20,
// raised above known, the largest index anyone has been shown. Fractions of the
// second count, so that a history that was lost with its files right after it
// began, and of which nobody knows, is passed too: until a million writes a
// second, time runs faster than the index.
func NextBase(now time.Time, known uint64) uint64 {
	base := uint64(0)
	if sec := now.Unix(); sec > 0 {
		base = uint64(sec)<<20 + uint64(now.Nanosecond())<<20/uint64(time.Second)
	}
	if base <= known {
		base = known + 1
	}
	return base
}

// Error is a command's refusal by the state machine. It is a reply like any
// other: every replica comes to the same, and it is kept for retries.
type Error struct {
	Text string `codec:"Text"`
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Is has [errors.Is] find a refusal that came over the wire or out of a log.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && e.Text == other.Text
}
