package catalog

import (
	"errors"
	"time"
)

// Consistency is what a read asks of the servers.
type Consistency uint8

const (
	// Default reads what the leader has, which may be old by a leader's lease.
	Default Consistency = iota
	// Stale reads what is at hand, leader or not.
	Stale
	// Consistent reads after the leader has made sure that it still is one.
	Consistent
	// Cached is Default while a server answers, and else what this host knows.
	Cached
)

// String names the consistency as the header X-Consul-Effective-Consistency does.
func (c Consistency) String() string {
	switch c {
	case Stale:
		return "stale"
	case Consistent:
		return "consistent"
	}
	return "leader"
}

// Effect is what becomes of a request that arrives twice.
type Effect uint8

const (
	// Reads change nothing.
	Reads Effect = iota
	// Writes are commands to the catalog, which are carried out once, by their request ID.
	Writes
	// Acts do it once more. One that may have arrived is not sent again: it is for who
	// asked to look what became of it.
	Acts
)

// ReadInfo says how fresh a [Reader] is.
type ReadInfo struct {
	KnownLeader bool
	LastContact time.Duration // since the last word of a leader; 0 on the leader itself
	Kept        bool          // it is what this host knows, no server was asked
}

// Reader is one unchanging state of the catalog: a server's store, or a host's view. Each
// method returns the index of its own result first, as clients see it and never 0, and adds
// to ws, if not nil, the channels that close when that result may have changed. What comes
// back is shared: it is never written to. Names compare without letter case. Safe for
// concurrent use, unless it is made for one request.
type Reader interface {
	// Nodes returns all nodes, by name; Node one, or nil.
	Nodes(ws Watch) (uint64, []*Node)
	Node(ws Watch, node string) (uint64, *Node)
	// Services returns each service's name with the tags of its instances.
	Services(ws Watch) (uint64, map[string][]string)
	// ServiceInstances returns the instances of the service, healthy or not, by node and
	// service ID.
	ServiceInstances(ws Watch, service string) (uint64, []Instance)
	// ServiceNodes returns them without their checks; changes of those alone need not close
	// a channel.
	ServiceNodes(ws Watch, service string) (uint64, []Instance)
	// NodeServices returns the services on the node, by ID.
	NodeServices(ws Watch, node string) (uint64, []*Service)
	// NodeChecks returns all checks on the node, its services' included, ServiceChecks those
	// of the service's instances without those of their nodes, ChecksInState those with the
	// status, [AnyState] for all.
	NodeChecks(ws Watch, node string) (uint64, []*Check)
	ServiceChecks(ws Watch, service string) (uint64, []*Check)
	ChecksInState(ws Watch, status string) (uint64, []*Check)
	// History is the present history.
	History(ws Watch) (uint64, History)
}

// AnyState asks [Reader.ChecksInState] for all checks.
const AnyState = "any"

// What reads and writes of the catalog come back with, whoever carried them out.
var (
	// ErrNoLeader: no server leads, as far as is known. A write that failed with it did not
	// happen.
	ErrNoLeader = errors.New("No cluster leader") //lint:ignore ST1005 Consul's words, which clients match
	// ErrNoServers is a kind of ErrNoLeader: no living server is known.
	ErrNoServers error = &kindError{"No known Consul servers", ErrNoLeader}
	// ErrUnknownOutcome: a write may have happened, or may yet.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
	// ErrBusy, ErrDiskFull and ErrTooLarge: the leader refused the write, which did not
	// happen.
	ErrBusy     = errors.New("too many writes are waiting to be committed")
	ErrDiskFull = errors.New("too little disk space to take writes")
	ErrTooLarge = errors.New("command is too large")
	// ErrNotAllowed: a host asked for what is not its to ask.
	ErrNotAllowed = errors.New("not allowed")
)

// kindError is an error of its own words that is a kind of another.
type kindError struct {
	text string
	kind error
}

// Error implements error.
func (e *kindError) Error() string { return e.text }

// Unwrap is what it is a kind of.
func (e *kindError) Unwrap() error { return e.kind }
