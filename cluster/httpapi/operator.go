package httpapi

import (
	"context"
	"time"

	"meibo/cluster/catalog"
)

// Operator is what the operator's endpoints ask for: gossip's keys of all hosts, and the
// servers of the cluster. All but Keyring are asked of the server that answers, which is
// the leader unless the request said stale. Safe for concurrent use.
type Operator interface {
	// Keyring carries out op on every host and gathers what each said. The error tells
	// that nothing was done anywhere; a host's refusal is in the answer.
	Keyring(ctx context.Context, op KeyringOp, key string, o KeyringOptions) ([]KeyringResponse, error)

	// RaftConfiguration is this server's present one and its index.
	RaftConfiguration(ctx context.Context) (RaftConfiguration, error)
	// RemovePeer takes a server out of the Raft configuration, by its Raft ID, or by its
	// address where the ID is empty. [ErrUnknownServer] if there is none.
	RemovePeer(ctx context.Context, id, address string) error
	// TransferLeader hands leadership to the server with the Raft ID, or to any.
	TransferLeader(ctx context.Context, id string) error

	// AutopilotConfig is how the servers are tended; [catalog.ErrNoLeader] while nobody has
	// said it yet.
	AutopilotConfig(ctx context.Context) (*catalog.Autopilot, error)
	// AutopilotHealth is what the leader knows of the servers; [catalog.ErrNoLeader] elsewhere.
	AutopilotHealth(ctx context.Context) (AutopilotHealth, error)
}

// KeyringOp is what to do with the keyring.
type KeyringOp string

// The operations. Install adds a key that is accepted but not yet used; Use makes an
// installed key the one that encrypts; Remove takes away one that is not in use.
const (
	KeyringList    KeyringOp = "list"
	KeyringInstall KeyringOp = "install"
	KeyringUse     KeyringOp = "use"
	KeyringRemove  KeyringOp = "remove"
)

// KeyringOptions narrow an operation.
type KeyringOptions struct {
	LocalOnly bool // list: this host's ring alone
}

// KeyringResponse is what the hosts of one pool said, in Consul's form.
type KeyringResponse struct {
	WAN         bool
	Datacenter  string
	Segment     string
	Messages    map[string]string // by node name, of those that could not do it: why
	Keys        map[string]int    // key in base64 to the number of hosts that hold it
	PrimaryKeys map[string]int    // the same for the key that encrypts
	NumNodes    int               // hosts asked
	Failed      []string          `json:",omitempty"` // hosts that are failed, and were not
	Error       string            `json:",omitempty"`
}

// RaftConfiguration is the configuration of Raft, in Consul's form.
type RaftConfiguration struct {
	Servers []RaftServer
	Index   uint64 // of the configuration in the log
}

// RaftServer is one server in it.
type RaftServer struct {
	ID              string // its node's
	RaftID          string `json:",omitempty"` // in the configuration and in peers.json, if that is another
	Node            string
	Address         string
	Leader          bool
	ProtocolVersion string
	Voter           bool
	LastIndex       uint64 // as far as the server that answers knows; 0: unknown
}

// AutopilotHealth is what the leader knows of the servers.
type AutopilotHealth struct {
	Healthy          bool
	FailureTolerance int // servers that may go without writes stopping
	Servers          []AutopilotServer
}

// AutopilotServer is one server.
type AutopilotServer struct {
	ID          string // Raft ID
	Name        string
	Address     string
	SerfStatus  string // "alive", "failed", "left", …
	Version     string
	Leader      bool
	LastContact time.Duration // since the leader's last word reached it; below 0: never
	LastTerm    uint64
	LastIndex   uint64
	Healthy     bool
	Voter       bool
	StableSince time.Time // of Healthy
	Meta        map[string]string
}
