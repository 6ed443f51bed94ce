package httpapi

import (
	"context"
	"log/slog"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/definition"
)

// age is how old what is kept may be: nothing while changes are followed.
func age(i catalog.ReadInfo) time.Duration {
	if i.KnownLeader {
		return 0
	}
	return i.LastContact
}

// A partial reader may lack what it was asked for: Err says so after a read.
type partial interface{ Err() error }

// Backend is the catalog as this API needs it. It stands for a whole cluster, not for a
// host. Safe for concurrent use.
type Backend interface {
	// Read returns the present state. [catalog.ErrNoLeader] when the consistency asked for needs
	// a leader and there is none; [catalog.ErrNoServers] when nothing is known yet at all.
	Read(ctx context.Context, c catalog.Consistency) (catalog.Reader, catalog.ReadInfo, error)
	// ReadKept returns what this host itself knows of a service, if it follows its
	// changes; else it begins to. Indexes are none above those that servers give.
	ReadKept(service string) (catalog.Reader, catalog.ReadInfo, bool)
	// Apply carries out a command and returns its index. A *[catalog.Error] is the state
	// machine's refusal; [catalog.ErrNoLeader] means that it did not happen; any other error
	// that its outcome is unknown.
	Apply(ctx context.Context, body catalog.Body) (index uint64, err error)
	// AwaitView returns once lookups on this host show the write of that index, or after
	// some seconds.
	AwaitView(ctx context.Context, index uint64)
	// Leader is the leader's Raft address, empty if there is none.
	Leader(ctx context.Context) string
	// Peers are the Raft addresses of all servers.
	Peers(ctx context.Context) []string
}

// Agent is this host. Its methods return [ErrUnknownService] or [ErrUnknownCheck] for
// what it does not hold, [ErrInvalid] (wrapped) for what it refuses to hold. Writes
// return when this host's own answers show them and, while a leader is known, the catalog
// has them, for which they wait a second at most. Safe for concurrent use.
type Agent interface {
	// Services and Checks are what this host holds, by ID. Shared: never written to.
	Services() map[string]*catalog.Service
	Checks() map[string]*catalog.Check
	// Changed returns a channel that closes at the next change of Services or Checks.
	Changed() <-chan struct{}

	// LeftOut are services and checks that this host's files define and that are not
	// used, because of a fault in them.
	LeftOut() []LeftOut

	// RegisterService adds or replaces a service with its checks. With replaceChecks,
	// checks of an earlier registration that are not named any more are removed.
	RegisterService(ctx context.Context, def definition.Service, replaceChecks bool) error
	DeregisterService(ctx context.Context, id string) error
	RegisterCheck(ctx context.Context, def definition.Check) error
	DeregisterCheck(ctx context.Context, id string) error
	// UpdateTTL reports for a TTL check; [ErrNotTTL] for a check of another kind.
	UpdateTTL(ctx context.Context, id, status, output string) error

	// ServiceMaintenance and NodeMaintenance take a service or the host out of answers,
	// or back in. The reason is shown in the check's notes; empty means a default text.
	ServiceMaintenance(ctx context.Context, id string, enable bool, reason string) error
	NodeMaintenance(ctx context.Context, enable bool, reason string) error

	Self() Self
	// Monitor returns the lines of the daemon's log from now on, from a level up, in
	// Consul's form, until ctx ends; then the channel is closed.
	Monitor(ctx context.Context, level slog.Level, json bool) <-chan []byte
	// Host is what the host has in hardware and runs: Consul's names, as far as they can
	// be known here.
	Host() map[string]any
	// Members are all that gossip knows of, this host among them.
	Members() []Member
	// Standing says how this host stands in its cluster.
	Standing() Standing
	// KnowsNode reports whether this host knows of a node of the name, in this history of
	// the catalog or from before, or the servers do.
	KnowsNode(ctx context.Context, name string) bool
	// Unconfirmed are nodes and services that this host knows from before the catalog
	// began anew, and that no server confirms, by node.
	Unconfirmed() []UnconfirmedNode
	// Join meets a host of a cluster, "address" or "address:port", and returns once its
	// members are known here.
	Join(ctx context.Context, addr string) error
	// Leave tells all others that this host goes, and ends the daemon. It returns when
	// they have been told.
	Leave(ctx context.Context) error
	// ForceLeave declares a failed member, by its name, to have left; with prune it is
	// dropped from the list of members too. [ErrUnknownMember] if there is none. The remark
	// says what was not done although the order was given, "" if nothing.
	ForceLeave(ctx context.Context, node string, prune bool) (remark string, err error)
	// Reload reads the configuration again; the old one stays if that fails. The remark
	// says what of the new one is not in force yet, "" if nothing.
	Reload(ctx context.Context) (remark string, err error)
}

// UnconfirmedNode is what only an earlier history of the catalog says of a node.
type UnconfirmedNode struct {
	Node, ID, Address string
	All               bool      // the node itself and all on it; else only Services
	Services          []string  // IDs
	Confirmed         time.Time // when a server that had a leader last confirmed it; zero: nobody knows
}

// LeftOut is a definition of a file that is not used.
type LeftOut struct {
	Check     bool // it is a check by itself, not a service
	ID, Name  string
	ServiceID string // of a check: the service it is a check of
	What, Why string // for people: which one, and what is wrong with it and where
}

// Self is what /v1/agent/self tells of this host.
type Self struct {
	NodeID            string
	NodeName          string
	Datacenter        string
	PrimaryDatacenter string // empty: Datacenter
	Server            bool
	Member            Member
	Meta              map[string]string            // node metadata
	Stats             map[string]map[string]string // by subsystem, as `consul info` shows them
	Debug             map[string]any               // the configuration in force, secrets left out
}
