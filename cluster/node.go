// Package cluster is one host of a meibo cluster as a single value: what it
// holds itself, what it knows of the catalog, and, on servers and on hosts that
// are alone, the catalog.
//
// A Node has two domains of failure. The view and the agent always run: they
// answer what this host holds from the moment New returns, and go on with the
// last that was known whatever happens to the rest. Consensus, its state machine
// and a leader's duties run beside them as one group, which is made anew, with
// growing pauses, whenever it fails: an unwritable folder, a full disk or a
// damaged file costs writes and reads of the newest, not lookups. Status says
// what is wrong meanwhile.
//
// The package knows nothing of DNS and not who serves HTTP.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/leader"
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
	Join            []string // whom to join: any of Consul's join keys
	// ServerPort is where servers speak to each other; 0: DefaultServerPort.
	ServerPort int
	// Version is what this host says of itself in the catalog: the level of the
	// API, a version of Consul.
	Version string

	// Agent configures the agent; Node, DataDir, Catalog, OnChange and Logger
	// are filled in here.
	Agent agent.Config

	Logger *slog.Logger // nil discards
}

// Node is one host. Its methods may be called at any time, by several
// goroutines at once.
type Node struct {
	cfg    Config
	logger *slog.Logger

	view  *view.View
	agent *agent.Agent

	// known is the newest server whose store holds the catalog, alive or not.
	known atomic.Pointer[server]
	// client and requests make request IDs: one life of this process, counted.
	client   string
	requests atomic.Uint64

	mu      sync.Mutex // guards following
	server  *server    // the running one; nil when there is none
	changed chan struct{}
	status  Status
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
		client: newUUID(), changed: make(chan struct{}),
		status: Status{State: Starting, Since: time.Now()},
	}
	if err := n.makeAgent(); err != nil {
		return nil, err
	}
	v, err := view.New(view.Config{
		NodeName: cfg.NodeName, NodeID: cfg.NodeID, Local: ownRecord{n.agent}, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	n.view = v
	return n, nil
}

// makeAgent makes the agent; it is silent until Run.
func (n *Node) makeAgent() error {
	cfg := n.cfg.Agent
	cfg.Node = n.record()
	cfg.DataDir = n.cfg.DataDir
	cfg.Catalog = agentCatalog{n}
	cfg.Logger = n.logger
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
			c.NodeID = newUUID()
		}
		return nil
	}
	kept, err := loadNodeID(c.DataDir)
	if c.NodeID == "" {
		c.NodeID = kept
	}
	if c.NodeID == "" {
		c.NodeID = newUUID()
	}
	if err == nil {
		err = keepNodeID(c.DataDir, c.NodeID)
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
	return !c.Dev && !c.Bootstrap && c.BootstrapExpect != 1 && !c.Server && len(c.Join) == 0
}

// holdsCatalog reports whether this host runs consensus: it may begin, or is a
// server that has begun before. bootstrap_expect is without meaning then.
func (n *Node) holdsCatalog() bool {
	if n.begins() {
		return true
	}
	if !n.cfg.Server || n.cfg.DataDir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(n.cfg.DataDir, raftDir, "raft.db"))
	return err == nil
}

// prepareDir makes sure that DataDir can be used, by this host, and returns the
// folder for consensus in it.
func (n *Node) prepareDir() (string, error) {
	if n.cfg.DataDir == "" {
		return "", nil
	}
	if err := keepNodeID(n.cfg.DataDir, n.cfg.NodeID); err != nil {
		return "", err
	}
	return filepath.Join(n.cfg.DataDir, raftDir), nil
}

func (n *Node) raftAddr() string {
	return net.JoinHostPort(n.cfg.Address, strconv.Itoa(n.cfg.ServerPort))
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
		Port: n.cfg.ServerPort,
		Meta: map[string]string{
			"version": n.cfg.Version, "raft_version": "3",
			"serf_protocol_current": "2", "serf_protocol_min": "1", "serf_protocol_max": "5",
			"non_voter": "false", "read_replica": "false",
		},
	}}
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
