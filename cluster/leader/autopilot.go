package leader

import (
	"context"
	"time"

	"meibo/cluster/catalog"
)

// Autopilot says what autopilot does with the servers. The names and meanings are
// Consul's.
type Autopilot struct {
	// CleanupDeadServers takes servers that failed out of the configuration
	// once others are in their place.
	CleanupDeadServers bool
	// LastContactThreshold is how long a healthy server may not have heard the
	// leader; 0: 200 ms.
	LastContactThreshold time.Duration
	// MaxTrailingLogs is how many entries a healthy server may be behind; 0:
	// 250.
	MaxTrailingLogs int
	// MinQuorum is how many voters a clean-up must leave; 0: no such bound.
	MinQuorum int
	// ServerStabilizationTime is how long a new server must have been healthy
	// before it votes; 0: 10 s. Below 0: at once.
	ServerStabilizationTime time.Duration
}

// DefaultAutopilot is Consul's.
var DefaultAutopilot = Autopilot{
	CleanupDeadServers:      true,
	LastContactThreshold:    200 * time.Millisecond,
	MaxTrailingLogs:         250,
	ServerStabilizationTime: 10 * time.Second,
}

func (a *Autopilot) setDefaults() {
	if a.LastContactThreshold <= 0 {
		a.LastContactThreshold = DefaultAutopilot.LastContactThreshold
	}
	if a.MaxTrailingLogs <= 0 {
		a.MaxTrailingLogs = DefaultAutopilot.MaxTrailingLogs
	}
	if a.ServerStabilizationTime == 0 {
		a.ServerStabilizationTime = DefaultAutopilot.ServerStabilizationTime
	}
}

// record is the policy as the catalog keeps it.
func (a Autopilot) record() catalog.Autopilot {
	return catalog.Autopilot{
		CleanupDeadServers: a.CleanupDeadServers, LastContactThreshold: a.LastContactThreshold, MaxTrailingLogs: a.MaxTrailingLogs,
		MinQuorum: a.MinQuorum, ServerStabilizationTime: max(a.ServerStabilizationTime, 0),
	}
}

// policyOf is what the catalog keeps as the leader goes by it.
func policyOf(c *catalog.Autopilot) Autopilot {
	a := Autopilot{
		CleanupDeadServers: c.CleanupDeadServers, LastContactThreshold: c.LastContactThreshold, MaxTrailingLogs: c.MaxTrailingLogs,
		MinQuorum: c.MinQuorum, ServerStabilizationTime: c.ServerStabilizationTime,
	}
	if a.ServerStabilizationTime == 0 {
		a.ServerStabilizationTime = -1 // at once, not the default
	}
	a.setDefaults()
	return a
}

// RaftServer is one server of the configuration.
type RaftServer struct {
	ID, Addr string
	Voter    bool
}

// Servers is the configuration of the servers, as the leader may change it.
// Each call returns when the change is committed, or with an error.
type Servers interface {
	// Configuration returns the latest configuration, and whether it is
	// committed.
	Configuration() (servers []RaftServer, committed bool)
	// Add adds the server, changes its address, or gives it a vote. It never
	// takes a vote away.
	Add(ctx context.Context, s RaftServer) error
	Remove(ctx context.Context, id string) error
	// Health asks the server at the address how it is.
	Health(ctx context.Context, addr string) (ServerHealth, error)
}

// ServerHealth is what a server says of itself.
type ServerHealth struct {
	// RaftID is the ID it goes by at present.
	RaftID string `codec:"RaftID"`
	// ClusterID names its cluster, empty while it belongs to none; see
	// [Config.ClusterID].
	ClusterID string `codec:"ClusterID,omitempty"`
	// LastContact is how long ago it heard the leader; below 0: never.
	LastContact time.Duration `codec:"LastContact"`
	// LastIndex and LastTerm are those of the last entry in its log.
	LastIndex uint64 `codec:"LastIndex"`
	LastTerm  uint64 `codec:"LastTerm"`
	// Promised says to whom it is promised while a cluster begins; empty: to
	// nobody.
	Promised string `codec:"Promised,omitempty"`
}

// AutopilotHealth is what the leader knows of the servers. It is shared and
// never modified.
type AutopilotHealth struct {
	Healthy bool // every server is
	// FailureTolerance is how many healthy voters may go without writes
	// stopping.
	FailureTolerance int
	Servers          []ServerState // by ID
}

// ServerState is what the leader knows of one server in the configuration.
type ServerState struct {
	ID          string // Raft server ID
	Name        string
	Address     string
	SerfStatus  string // "alive", "failed", "left", or "none" if it is no member
	Version     string
	Leader      bool
	LastContact time.Duration // below 0: never, or it doesn't answer
	LastTerm    uint64
	LastIndex   uint64
	Healthy     bool
	Voter       bool
	StableSince time.Time // of Healthy
	Meta        map[string]string
}
