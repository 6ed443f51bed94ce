// Package cluster is one host of a meibo cluster as a single value: what it
// holds itself, what it knows of the catalog, and, on servers and on hosts that
// are alone, the catalog.
//
// A Node has three domains of failure. The view and the agent always run: they
// answer what this host holds from the moment New returns, and go on with the
// last that was known whatever happens to the rest. Gossip and link, by which
// this host speaks with others, are the second; consensus, its state machine and
// the leader loop, which only servers and hosts that are alone have, the
// third. Each of these two is made anew, with growing pauses, whenever it fails:
// a port that is taken, an unwritable folder, a full disk or a damaged file costs
// writes and reads of the newest, not lookups. Status says what is wrong
// meanwhile.
//
// The package knows nothing of DNS and not who serves HTTP.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/gossip"
	"meibo/cluster/leader"
	"meibo/cluster/link"
	"meibo/cluster/membership"
	"meibo/cluster/rpc"
	"meibo/cluster/server"
	"meibo/cluster/view"
)

// Defaults, which are Consul's.
const (
	DefaultDatacenter = "dc1"
	DefaultServerPort = 8300
	defaultAddress    = "127.0.0.1"
)

// raftDir is the folder in DataDir that consensus keeps its files in.
const raftDir = "raft"

// Network is where link and gossip listen and dial.
type Network interface {
	link.Network
	gossip.Network
}

// Config is what a Node is made from. All but NodeName may be left out.
type Config struct {
	// NodeName is this host's name in the catalog.
	NodeName string
	// NodeID is a UUID; empty: the one kept in DataDir, made if there is none.
	NodeID string
	// Datacenter is the name of the own one; empty: DefaultDatacenter.
	Datacenter string
	// Address is where others reach this host; empty: 127.0.0.1.
	Address         string
	TaggedAddresses map[string]string // nil: Address under Consul's names
	Meta            map[string]string // the pairs that agents add are filled in here
	// DataDir holds all that is kept; empty keeps everything in memory.
	DataDir string

	// Dev, Bootstrap, and BootstrapExpect 1 make this host begin a history of
	// its own, as does being neither a Server nor given anybody to join.
	// Otherwise it waits for others, and answers what it holds itself.
	Dev             bool
	Server          bool
	Bootstrap       bool
	BootstrapExpect int
	// ServerPort is where hosts speak to each other by link; 0:
	// DefaultServerPort.
	ServerPort int

	// Gossip says whom to join, where to listen and how fast to be; who this
	// host is, its tags, keys and hooks are filled in here. Without a valid
	// Bind address this host never speaks to others.
	Gossip gossip.Config
	// Key is the configured secret of the cluster; empty: none but what the
	// file KeyringPath holds ("" keeps the keyring in memory). InTheClear allows
	// to speak without any.
	Key         []byte
	KeyringPath string
	InTheClear  bool

	// Network is by what this host speaks to others; nil: the kernel's.
	Network Network

	// Consensus tunes Raft; its zero timeouts follow the round trip between the
	// servers. Autopilot says how a leader tends the servers.
	Consensus consensus.Config
	Autopilot leader.Autopilot
	// ViewPath is the file that the view is kept in, empty: none; ViewKeep is
	// for how long contents stay in it without a question.
	ViewPath string
	ViewKeep time.Duration
	// WholeBelow is the size in bytes up to which a server tells every host all
	// of the catalog; 0: feed's default.
	WholeBelow int64
	// HoldTime is how long a request waits for a leader; 0: 7 s.
	HoldTime time.Duration
	// HandshakeTimeout and ConnsPerMember bound the connections of other hosts;
	// 0: link's defaults.
	HandshakeTimeout time.Duration
	ConnsPerMember   int
	// Scope reads on whose behalf a request is made that is carried to another
	// host, WithScope puts that into a context there. nil: requests have none.
	Scope     func(*http.Request) (node, datacenter, token string)
	WithScope func(ctx context.Context, node, datacenter, token string) context.Context
	// InUse returns which process has a socket that is in the way of one, for
	// people to read, "" for none; nil: nobody knows.
	InUse func(proto string, addr netip.AddrPort) string
	// Version is what this host says of itself in the catalog: the level of the
	// API, a version of Consul. Program is the version of meibo, told by gossip.
	Version, Program string

	// Agent configures the agent; Node, DataDir, Catalog, OnChange and Logger
	// are filled in here.
	Agent agent.Config

	Logger *slog.Logger // nil discards

	madeID bool // NodeID was made by this start: nobody has seen it before
}

// Node is one host. Its methods may be called at any time, by several
// goroutines at once.
type Node struct {
	cfg    Config
	logger *slog.Logger

	view  *view.View
	agent *agent.Agent

	// known is the newest server whose store holds the catalog, alive or not.
	known    atomic.Pointer[server.Server]
	requests *catalog.RequestIDs

	keyring *gossip.Keyring
	file    *view.File // nil: none
	// serverIDs are of runServer's goroutine alone.
	serverIDs server.IDs
	goodbye   goodbye
	// removed says that the other servers removed this one, and that it is not
	// theirs again.
	removed atomic.Bool
	// api answers requests that other hosts carried here.
	api atomic.Pointer[http.Handler]

	// wanted is closed when this host is to speak to others, joined when it has
	// met some; from then on it isn't alone any more.
	wantOnce, joinOnce sync.Once
	wanted, joined     chan struct{}

	mu      sync.Mutex     // guards following
	server  *server.Server // the running one; nil when there is none
	changed chan struct{}  // closed when server, status or leaving has changed
	status  Status
	// announced are the tags that the server of this host had gossip say.
	announced map[string]string
	leaving   bool // this server gives up its vote for good

	net atomic.Pointer[networkState] // written with mu held
}

// New checks cfg, finds this host's ID, and shows in the view what the agent
// holds. It starts nothing. A DataDir that can't be used is no error: it is said
// in the log and tried again by Run.
func New(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, logger: cfg.Logger,
		requests: catalog.NewRequestIDs(), changed: make(chan struct{}), wanted: make(chan struct{}), joined: make(chan struct{}),
		status: Status{State: Starting, Since: time.Now()},
	}
	n.net.Store(&networkState{last: new(membership.Table), changed: make(chan struct{})})
	if err := n.openKeyring(); err != nil {
		return nil, err
	}
	if err := n.makeAgent(); err != nil {
		return nil, err
	}
	if err := n.makeView(); err != nil {
		return nil, err
	}
	n.serverIDs = server.IDs{NodeID: cfg.NodeID, Fresh: cfg.madeID, Fixed: !cfg.Server, Logger: n.logger}
	if n.meetsOthers() {
		n.requestNetwork()
	}
	return n, nil
}

// openKeyring reads the keys. A file that can't be read costs the network, not
// the name service: it is said, and what is configured is used.
func (n *Node) openKeyring() error {
	ring, err := gossip.OpenKeyring(n.cfg.KeyringPath, n.cfg.Key)
	if err != nil && n.cfg.KeyringPath != "" {
		n.logger.Error("keyring cannot be read, this host goes on with the configured key", "err", err)
		ring, err = gossip.OpenKeyring("", n.cfg.Key)
	}
	n.keyring = ring
	if err == nil && ring.Notice() != "" {
		n.logger.Warn("keyring: "+ring.Notice(), "path", ring.Path())
	}
	return err
}

// makeView makes the view and has it show what was last known.
func (n *Node) makeView() error {
	v, err := view.New(view.Config{
		NodeName: n.cfg.NodeName, NodeID: n.cfg.NodeID, Local: ownRecord{n.agent}, Logger: n.logger,
		Liveness: liveness{n}, Living: n.living, Lives: n.lifeOfAll, Expecting: n.expectsOthers(),
	})
	if err != nil {
		return err
	}
	n.view = v
	if n.cfg.ViewPath == "" || n.cfg.Dev {
		return nil
	}
	n.file, err = view.NewFile(view.FileConfig{
		Path: n.cfg.ViewPath, NodeID: n.cfg.NodeID, Datacenter: n.cfg.Datacenter, Keys: n.keyring.Keys,
		Keep: n.cfg.ViewKeep, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	if known := n.file.Load(); known != nil {
		n.restoreLives(known.Lives)
		v.Import(known, view.FromDisk)
	}
	return nil
}

// makeAgent makes the agent; it is silent until Run.
func (n *Node) makeAgent() error {
	cfg := n.cfg.Agent
	cfg.Node = n.record()
	cfg.DataDir = n.cfg.DataDir
	cfg.Catalog = agentCatalog{n}
	cfg.Logger = n.logger
	cfg.Members = func() int { return len(n.Members()) }
	cfg.OnChange = func(agent.Change) {
		if n.view != nil { // nil while New is at it; the view begins with all there is
			n.view.OnLocalChange()
		}
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	n.agent = a
	return nil
}

func (c *Config) setDefaults() error {
	if c.NodeName == "" {
		return errors.New("cluster: the node needs a name: set node_name")
	}
	if c.BootstrapExpect < 0 {
		return fmt.Errorf("cluster: bootstrap_expect is %d: want 0 or more", c.BootstrapExpect)
	}
	if c.Bootstrap && c.BootstrapExpect > 1 {
		return fmt.Errorf("cluster: bootstrap means one server, bootstrap_expect says %d: remove one of the two", c.BootstrapExpect)
	}
	if c.Datacenter == "" {
		c.Datacenter = DefaultDatacenter
	}
	if c.Address == "" {
		c.Address = defaultAddress
	}
	if c.ServerPort == 0 {
		c.ServerPort = DefaultServerPort
	}
	if c.HoldTime == 0 {
		c.HoldTime = rpc.DefaultHold
	}
	if c.TaggedAddresses == nil {
		c.TaggedAddresses = taggedAddresses(c.Address)
	}
	c.Meta = c.withAgentMeta(c.Meta)
	return c.setNodeID()
}

// withAgentMeta adds what clients of Consul look for in every node's metadata.
func (c *Config) withAgentMeta(own map[string]string) map[string]string {
	meta := map[string]string{catalog.MetaSegment: "", catalog.MetaVersion: c.Version}
	maps.Copy(meta, own)
	return meta
}

// setNodeID finds the ID: the one asked for, else the one kept, else a new one.
func (c *Config) setNodeID() error {
	c.NodeID = strings.ToLower(c.NodeID)
	if c.NodeID != "" && !catalog.IsUUID(c.NodeID) {
		return fmt.Errorf("cluster: node_id %q is not a UUID", c.NodeID)
	}
	if c.DataDir == "" {
		if c.NodeID == "" {
			c.NodeID, c.madeID = catalog.NewUUID(), true
		}
		return nil
	}
	kept, err := loadNodeID(c.DataDir)
	if c.NodeID == "" {
		c.NodeID = kept
	}
	if c.NodeID == "" {
		c.NodeID, c.madeID = catalog.NewUUID(), true
	}
	if err == nil {
		err = ensureNodeID(c.DataDir, c.NodeID)
	}
	if err != nil {
		c.Logger.Error("node ID cannot be kept; the name service goes on without data_dir and tries again",
			"node", c.NodeID, "err", err)
	}
	return nil
}

// taggedAddresses are those that a node has by its address alone.
func taggedAddresses(address string) map[string]string {
	tagged := map[string]string{"lan": address, "wan": address}
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil:
	case ip.Is4():
		tagged["lan_ipv4"], tagged["wan_ipv4"] = address, address
	default:
		tagged["lan_ipv6"], tagged["wan_ipv6"] = address, address
	}
	return tagged
}

// begins reports whether this host begins a history if it has none.
func (n *Node) begins() bool {
	c := n.cfg
	return c.Dev || c.Bootstrap || c.BootstrapExpect == 1 || n.isProvisional()
}

// isProvisional reports whether a history that this host begins is dropped when
// it first joins others: nobody has said that it should be one.
func (n *Node) isProvisional() bool {
	c := n.cfg
	return !c.Dev && !c.Bootstrap && c.BootstrapExpect != 1 && !c.Server && !n.hasJoin() && !n.hasJoined()
}

// hasJoin reports whether the configuration names hosts to join.
func (n *Node) hasJoin() bool {
	return len(n.cfg.Gossip.RetryJoin)+len(n.cfg.Gossip.StartJoin)+len(n.cfg.Gossip.RetryJoinExec) > 0
}

// holdsCatalog reports whether this host runs consensus.
func (n *Node) holdsCatalog() bool { return n.cfg.Server || n.begins() }

// HoldsCatalog reports whether this host is to hold the catalog: as a server, or
// because it is alone.
func (n *Node) HoldsCatalog() bool { return n.holdsCatalog() }

// IsProvisional reports whether this host, being alone, keeps a catalog for itself
// that it drops when it joins others.
func (n *Node) IsProvisional() bool { return n.isProvisional() }

// prepareDir makes sure that DataDir can be used, by this host, and returns the
// folder for consensus in it.
func (n *Node) prepareDir() (string, error) {
	if n.cfg.DataDir == "" {
		return "", nil
	}
	if err := ensureNodeID(n.cfg.DataDir, n.cfg.NodeID); err != nil {
		return "", err
	}
	return n.raftFolder(), nil
}

// raftFolder is the folder for consensus; "" without DataDir.
func (n *Node) raftFolder() string {
	if n.cfg.DataDir == "" {
		return ""
	}
	return filepath.Join(n.cfg.DataDir, raftDir)
}

func (n *Node) raftAddr() string {
	return net.JoinHostPort(n.cfg.Address, strconv.Itoa(max(0, n.cfg.ServerPort)))
}

// record is this host's node record: the agent's, once there is one.
func (n *Node) record() catalog.Node {
	if n.agent != nil {
		return *n.agent.Own().Node
	}
	return catalog.Node{
		ID: n.cfg.NodeID, Node: n.cfg.NodeName, Address: n.cfg.Address, Datacenter: n.cfg.Datacenter,
		TaggedAddresses: n.cfg.TaggedAddresses, Meta: n.cfg.Meta,
	}
}

// member is this host as a leader sees it.
func (n *Node) member() leader.Member {
	return leader.Member{Node: n.record(), Status: leader.Alive, Server: &leader.Server{
		Port: n.cfg.ServerPort, Addr: n.raftAddr(), Meta: serverMeta(n.cfg.Version, false),
	}}
}

// serverMeta is what Consul's servers say of themselves in the catalog.
func serverMeta(version string, nonVoter bool) map[string]string {
	return map[string]string{
		"version": version, "raft_version": "3",
		"serf_protocol_current": "2", "serf_protocol_min": "1", "serf_protocol_max": "5",
		"non_voter": strconv.FormatBool(nonVoter), "read_replica": strconv.FormatBool(nonVoter),
	}
}

// View is what this host knows of the catalog.
func (n *Node) View() *view.View { return n.view }

// Agent is what this host holds itself.
func (n *Node) Agent() *agent.Agent { return n.agent }

// Record is this host's node record, ID and defaults filled in. It is shared.
func (n *Node) Record() catalog.Node { return n.record() }

// SetMeta gives this host's node other metadata, as Config.Meta at the start.
func (n *Node) SetMeta(meta map[string]string) { n.agent.SetNodeMeta(n.cfg.withAgentMeta(meta)) }

// Ready returns a channel that is closed once the catalog is known; what this
// host holds itself is before.
func (n *Node) Ready() <-chan struct{} { return n.view.Load().Ready("") }
