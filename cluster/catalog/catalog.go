// Package catalog is the vocabulary of the cluster: nodes, services, checks,
// the commands that change them, and how those commands are written down.
//
// The structs are plain. Where one is shown by Consul's HTTP API v1 its field
// names are Consul's; meibo's own marks (Synced, Agentless, the Node of a
// Service) stay out of that JSON. Every value that comes out of a store or a
// view is shared and immutable: copy it to change it.
//
// A Command is what the Raft log holds. Its encoding begins with a version
// octet and never changes for a version once released; testdata holds golden
// encodings. Decoding refuses what it doesn't know and names it, because a
// replica that skips what it doesn't understand is a replica that differs.
//
// The package holds no state, reads no clock and draws no random numbers, and
// must know nothing of who stores, replicates, serves or asks.
package catalog

import (
	"slices"
	"strings"
	"time"
)

// The states of a check, as Consul spells them. Maintenance is only ever the
// aggregate of an instance (see [Instance.Status]), never stored in a check.
const (
	Passing     = "passing"
	Warning     = "warning"
	Critical    = "critical"
	Maintenance = "maintenance"
)

// Check IDs with a meaning of their own.
const (
	// SerfHealth is the node check that says whether gossip reaches the host.
	SerfHealth = "serfHealth"
	// NodeMaint is the node check that puts a whole host into maintenance.
	NodeMaint = "_node_maintenance"
	// ServiceMaintPrefix and a service ID make the check that puts one
	// service into maintenance.
	ServiceMaintPrefix = "_service_maintenance:"
)

// Pairs that each agent adds to the metadata of its node, as Consul's do. meibo
// has no network segments: that value is empty.
const (
	MetaSegment = "consul-network-segment"
	MetaVersion = "consul-version"
)

// ConsulService is the name and ID of the service that each server has.
const ConsulService = "consul"

// Node is a host. ID is a UUID in lower case or empty (a node without an
// agent need not have one); Node is its name, compared without letter case.
type Node struct {
	ID              string            `codec:"ID,omitempty"`
	Node            string            `codec:"Node"`
	Address         string            `codec:"Address,omitempty"`
	Datacenter      string            `codec:"Datacenter,omitempty"`
	TaggedAddresses map[string]string `codec:"TaggedAddresses,omitempty"`
	Meta            map[string]string `codec:"Meta,omitempty"`
	Locality        *Locality         `codec:"Locality,omitempty" json:",omitempty"`
	CreateIndex     uint64            `codec:"CreateIndex,omitempty"`
	ModifyIndex     uint64            `codec:"ModifyIndex,omitempty"`

	// Synced is the ID of the history in which this node's agent last
	// finished a full sync; empty if it never did.
	Synced string `codec:"Synced,omitempty" json:"-"`
	// Agentless says that no agent answers for the node: it was registered
	// through the catalog API.
	Agentless bool `codec:"Agentless,omitempty" json:"-"`
}

// ServiceAddress is one entry of a service's tagged addresses.
type ServiceAddress struct {
	Address string `codec:"Address"`
	Port    int    `codec:"Port"`
}

// Weights say how much an instance takes when it passes or warns. Each is
// 0 to 65535, Passing at least 1; the zero value stands for {1, 1}.
type Weights struct {
	Passing int `codec:"Passing"`
	Warning int `codec:"Warning"`
}

// Locality says where something runs. Zone is nothing without Region. Answers are
// not sorted by it.
type Locality struct {
	Region string `codec:"Region,omitempty"`
	Zone   string `codec:"Zone,omitempty"`
}

// SameLocality compares two, each of which may be nil.
func SameLocality(a, b *Locality) bool { return a == b || a != nil && b != nil && *a == *b }

// Service is one instance of a service on a node. Its JSON is that of the
// Service object in /v1/health/service, without the mesh's fields.
type Service struct {
	// Node is the name of the node the instance is on.
	Node string `codec:"Node,omitempty" json:"-"`

	Kind              string                    `codec:"Kind,omitempty" json:",omitempty"`
	ID                string                    `codec:"ID"`
	Service           string                    `codec:"Service"`
	Tags              []string                  `codec:"Tags,omitempty"`
	Address           string                    `codec:"Address,omitempty"`
	TaggedAddresses   map[string]ServiceAddress `codec:"TaggedAddresses,omitempty" json:",omitempty"`
	Meta              map[string]string         `codec:"Meta,omitempty"`
	Port              int                       `codec:"Port,omitempty"`
	SocketPath        string                    `codec:"SocketPath,omitempty" json:",omitempty"`
	Weights           Weights                   `codec:"Weights"`
	EnableTagOverride bool                      `codec:"EnableTagOverride,omitempty"`
	Locality          *Locality                 `codec:"Locality,omitempty" json:",omitempty"`
	CreateIndex       uint64                    `codec:"CreateIndex,omitempty"`
	ModifyIndex       uint64                    `codec:"ModifyIndex,omitempty"`
}

// CheckDefinition is how a check of an agentless node is to be run, by
// whoever runs such checks (consul-esm). Durations are Go's notation. meibo
// keeps it and does not read it.
type CheckDefinition struct {
	Interval                       string              `codec:"Interval,omitempty" json:",omitempty"`
	Timeout                        string              `codec:"Timeout,omitempty" json:",omitempty"`
	DeregisterCriticalServiceAfter string              `codec:"Deregister,omitempty" json:",omitempty"`
	HTTP                           string              `codec:"HTTP,omitempty" json:",omitempty"`
	TLSServerName                  string              `codec:"TLSServerName,omitempty" json:",omitempty"`
	TLSSkipVerify                  bool                `codec:"TLSSkipVerify,omitempty" json:",omitempty"`
	Header                         map[string][]string `codec:"Header,omitempty" json:",omitempty"`
	Method                         string              `codec:"Method,omitempty" json:",omitempty"`
	Body                           string              `codec:"Body,omitempty" json:",omitempty"`
	DisableRedirects               bool                `codec:"DisableRedirects,omitempty" json:",omitempty"`
	TCP                            string              `codec:"TCP,omitempty" json:",omitempty"`
	TCPUseTLS                      bool                `codec:"TCPUseTLS,omitempty" json:",omitempty"`
	UDP                            string              `codec:"UDP,omitempty" json:",omitempty"`
	H2PING                         string              `codec:"H2PING,omitempty" json:",omitempty"`
	H2PingUseTLS                   bool                `codec:"H2PingUseTLS,omitempty" json:",omitempty"`
	OSService                      string              `codec:"OSService,omitempty" json:",omitempty"`
	GRPC                           string              `codec:"GRPC,omitempty" json:",omitempty"`
	GRPCUseTLS                     bool                `codec:"GRPCUseTLS,omitempty" json:",omitempty"`
	AliasNode                      string              `codec:"AliasNode,omitempty" json:",omitempty"`
	AliasService                   string              `codec:"AliasService,omitempty" json:",omitempty"`
	TTL                            string              `codec:"TTL,omitempty" json:",omitempty"`
}

// Check is one health check, of a node (ServiceID empty) or of one of its
// services. CheckID is unique on its node. ServiceName and ServiceTags follow
// the service. Its JSON is that of /v1/health.
type Check struct {
	Node        string     `codec:"Node,omitempty"`
	CheckID     string     `codec:"CheckID"`
	Name        string     `codec:"Name,omitempty"`
	Status      string     `codec:"Status"`
	Notes       string     `codec:"Notes,omitempty"`
	Output      string     `codec:"Output,omitempty"`
	ServiceID   string     `codec:"ServiceID,omitempty"`
	ServiceName string     `codec:"ServiceName,omitempty"`
	ServiceTags []string   `codec:"ServiceTags,omitempty"`
	Type        string     `codec:"Type,omitempty"`
	Interval    string     `codec:"Interval,omitempty"`
	Timeout     string     `codec:"Timeout,omitempty"`
	ExposedPort int        `codec:"ExposedPort,omitempty"`
	Definition  Definition `codec:"Definition"`
	CreateIndex uint64     `codec:"CreateIndex,omitempty"`
	ModifyIndex uint64     `codec:"ModifyIndex,omitempty"`
}

// IsMaintenance reports whether the check is one of those that put a node or
// a service into maintenance.
func (c *Check) IsMaintenance() bool {
	return c.CheckID == NodeMaint || strings.HasPrefix(c.CheckID, ServiceMaintPrefix)
}

// Instance is a service on its node with all the checks that bear on it: the
// node's, then its own, each group ordered by CheckID.
type Instance struct {
	Node    *Node
	Service *Service
	Checks  []*Check
}

// Status is the aggregate of the instance's checks: [Maintenance] if one of
// them is a maintenance check, else the worst of the others, [Passing] if
// there are none. A status that is none of the three counts as critical.
func (i Instance) Status() string { return AggregateStatus(i.Checks) }

// AggregateStatus is the worst status among checks, as [Instance.Status].
func AggregateStatus(checks []*Check) string {
	worst := Passing
	for _, c := range checks {
		switch {
		case c.IsMaintenance():
			return Maintenance
		case c.Status == Passing:
		case c.Status == Warning:
			if worst == Passing {
				worst = Warning
			}
		default:
			worst = Critical
		}
	}
	return worst
}

// History is one life of the catalog, from a bootstrap or a restore to the
// next. The zero value means that none has begun yet.
type History struct {
	// ID is a UUID, made by the command that began the history.
	ID string `codec:"ID"`
	// Base is added to Raft's index to make the index that clients see.
	Base uint64 `codec:"Base"`
	// Provisional says that a host began it because it was alone and had
	// nobody to join: it is dropped, not merged, when the host first joins.
	Provisional bool `codec:"Provisional,omitempty"`
}

// Autopilot is what autopilot does with the servers. Names and meanings are Consul's; the
// last three fields are of parts that don't exist here, and are only kept.
type Autopilot struct {
	// CleanupDeadServers takes servers that failed out of the configuration
	// once others are in their place.
	CleanupDeadServers bool `codec:"CleanupDeadServers,omitempty"`
	// LastContactThreshold is how long a healthy server may not have heard the
	// leader.
	LastContactThreshold time.Duration `codec:"LastContactThreshold,omitempty"`
	// MaxTrailingLogs is how many entries a healthy server may be behind.
	MaxTrailingLogs int `codec:"MaxTrailingLogs,omitempty"`
	// MinQuorum is how many voters a clean-up must leave; 0: no such bound.
	MinQuorum int `codec:"MinQuorum,omitempty"`
	// ServerStabilizationTime is how long a new server must have been healthy
	// before it votes.
	ServerStabilizationTime time.Duration `codec:"ServerStabilizationTime,omitempty"`
	RedundancyZoneTag       string        `codec:"RedundancyZoneTag,omitempty"`
	DisableUpgradeMigration bool          `codec:"DisableUpgradeMigration,omitempty"`
	UpgradeVersionTag       string        `codec:"UpgradeVersionTag,omitempty"`
	CreateIndex             uint64        `codec:"CreateIndex,omitempty"`
	ModifyIndex             uint64        `codec:"ModifyIndex,omitempty"`
}

// Tombstone says that something was deregistered in this history: hosts that
// remember it from another one must forget it. ServiceID and CheckID are both empty for a whole node.
type Tombstone struct {
	Node      string `codec:"Node"`
	ServiceID string `codec:"ServiceID,omitempty"`
	CheckID   string `codec:"CheckID,omitempty"`
	Index     uint64 `codec:"Index"`
}

// Watch collects channels that are closed when a result that was read may
// have changed. go-memdb's WatchSet is one. A nil Watch collects nothing.
type Watch interface {
	Add(<-chan struct{})
}

// HasTag reports whether the service has the tag, compared without letter
// case, as Consul's DNS and API do.
func (s *Service) HasTag(tag string) bool {
	return slices.ContainsFunc(s.Tags, func(t string) bool { return strings.EqualFold(t, tag) })
}

// ChecksShowSame reports whether checks, in the same order, show the same in an
// answer: what they print and their indexes left aside.
func ChecksShowSame(a, b []*Check) bool {
	return slices.EqualFunc(a, b, func(a, b *Check) bool {
		return a == b || a.CheckID == b.CheckID && a.Status == b.Status && a.ServiceID == b.ServiceID
	})
}
