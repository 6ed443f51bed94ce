package cluster

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"meibo/cluster/bootstrap"
	"meibo/cluster/catalog"
	"meibo/cluster/leader"
	"meibo/cluster/membership"
	"meibo/cluster/rpc"
	"meibo/cluster/server"
)

// newServer makes a life of the server of this host.
func (n *Node) newServer(ctx context.Context) (*server.Server, error) {
	dir, err := n.prepareDir()
	if err != nil {
		return nil, err
	}
	cfg := server.Config{
		Self: n.member, Addr: n.raftAddr(), Dir: dir, IDs: &n.serverIDs, Begins: n.begins(), Provisional: n.isProvisional(),
		Expect: n.cfg.BootstrapExpect, Removed: n.removed.Load(), Known: func() uint64 { return n.view.Load().Index() }, OnReady: n.onServerReady,
		Consensus: n.cfg.Consensus, Autopilot: n.cfg.Autopilot, ReconnectTimeout: n.cfg.Gossip.ReconnectTimeout,
		WholeBelow: n.cfg.WholeBelow, Logger: n.logger,
	}
	if n.cfg.Server && n.meetsOthers() {
		cfg.Network = &serverNetwork{n: n}
	}
	return server.New(ctx, cfg)
}

// onServerReady takes the catalog of a server for that of this host.
func (n *Node) onServerReady(s *server.Server) {
	if n.removed.CompareAndSwap(true, false) {
		n.logger.Info("this server is one of the cluster's again")
	}
	if old := n.known.Swap(s); old != nil {
		old.Supersede() // who waits for its changes reads the new one
	}
	n.mu.Lock()
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
	// The agent's writes have failed, if it had any: not all of a back-off later.
	n.agent.Resync(0)
}

// serverNetwork is how this host's server speaks to others.
type serverNetwork struct {
	n *Node

	mu    sync.Mutex                 // guards following
	known map[*Member]*leader.Member // the members as the leader was last told of them
	table *membership.Table          // of which peers are the servers
	peers []server.Peer
}

// Peers implements server.Network.
func (s *serverNetwork) Peers() ([]server.Peer, <-chan struct{}) {
	w, netChanged := s.n.network()
	if w == nil {
		return nil, netChanged
	}
	members := w.gossip.Members()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table == members { // Raft asks for each message
		return slices.Clone(s.peers), members.Changed()
	}
	var peers []server.Peer
	for _, m := range members.Role(roleServer) {
		if m.ID == s.n.cfg.NodeID {
			continue
		}
		one := serverOf(m)
		peers = append(peers, server.Peer{
			Member: bootstrap.Member{
				Name: m.Name, NodeID: m.ID, RaftID: one.RaftID, Addr: one.Addr, Expect: one.Expect, NonVoter: one.NonVoter,
				InCluster: m.Tags[tagHistory] != "",
			},
			Datacenter: m.Datacenter, Alive: m.Status == membership.Alive, RTT: m.RTT,
		})
	}
	s.table, s.peers = members, peers
	return slices.Clone(peers), members.Changed()
}

// Ping implements server.Network.
func (s *serverNetwork) Ping(ctx context.Context, name string) (time.Duration, error) {
	w, _ := s.n.network()
	if w == nil {
		return 0, ErrAlone
	}
	return w.gossip.Ping(ctx, name)
}

// Announce implements server.Network. A network that begins later says it too.
func (s *serverNetwork) Announce(raftID, history string) error {
	tags := map[string]string{tagRaft: raftID}
	if history != "" {
		tags[tagHistory] = history[:min(len(history), historyDigits+2)] // two hyphens among them
	}
	s.n.mu.Lock()
	s.n.announced = tags
	s.n.mu.Unlock()
	w, _ := s.n.network() // after that: one that begins now has read it
	if w == nil {
		return nil
	}
	return w.gossip.SetTags(tags)
}

// Dial implements server.Network.
func (s *serverNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	w, _ := s.n.network()
	if w == nil {
		return nil, ErrAlone
	}
	conn, err := w.link.Dial(ctx, addr, raftProtocol, "")
	if err != nil {
		return nil, err // not a nil *tls.Conn in an interface
	}
	return conn, nil
}

// Call implements server.Network.
func (s *serverNetwork) Call(ctx context.Context, toLeader bool, addr, path string, in, out any) error {
	w, _ := s.n.network()
	if w == nil {
		return ErrAlone
	}
	return w.rpc.Call(ctx, toLeader, addr, path, in, out)
}

// StreamChanged implements server.Network. A host whose stream broke is looked into:
// one whose link is refused for long enough is dead, which gossip may be slower to
// find.
func (s *serverNetwork) StreamChanged(nodeID string, up bool) {
	if w, _ := s.n.network(); w != nil && !up {
		w.suspects.investigate(nodeID)
	}
}

// Members implements leader.Members. What a member is for the leader is kept for as
// long as the member is the same: a change costs what has changed.
func (s *serverNetwork) Members() ([]*leader.Member, bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.known
	s.known = make(map[*Member]*leader.Member, len(before))
	return s.leaderMembers((*membership.Table).Members, func(m *Member) *leader.Member {
		member := before[m]
		if member == nil || m.ID == s.n.cfg.NodeID { // what the agent says of this host changes by itself
			member = s.n.leaderMember(m)
		}
		s.known[m] = member
		return member
	})
}

// Servers implements leader.Members.
func (s *serverNetwork) Servers() ([]*leader.Member, bool, <-chan struct{}) {
	return s.leaderMembers(func(t *membership.Table) []*Member { return t.Role(roleServer) }, s.n.leaderMember)
}

func (s *serverNetwork) leaderMembers(which func(*membership.Table) []*Member, of func(*Member) *leader.Member) ([]*leader.Member, bool, <-chan struct{}) {
	w, netChanged := s.n.network()
	if w == nil {
		self := s.n.member()
		return []*leader.Member{&self}, false, netChanged
	}
	table := w.gossip.Members()
	members := make([]*leader.Member, 0, len(which(table)))
	for _, m := range which(table) {
		if m.Datacenter == s.n.cfg.Datacenter && m.Status != membership.NeverSeen {
			members = append(members, of(m))
		}
	}
	return members, table.Guarded(), table.Changed()
}

// IsGone implements leader.Members.
func (s *serverNetwork) IsGone(nodeID string) bool {
	w, _ := s.n.network()
	return w != nil && w.gossip.Members().Life(nodeID) == membership.Left
}

// leaderMember is one member in the leader's words.
func (n *Node) leaderMember(m *Member) *leader.Member {
	member := &leader.Member{Since: m.Since, Conflict: m.Conflict}
	switch m.Status {
	case membership.Failed:
		member.Status = leader.Failed
	case membership.Left:
		member.Status = leader.Left
	}
	if m.ID == n.cfg.NodeID {
		member.Node = n.record()
	} else {
		address := m.Addr.String()
		member.Node = catalog.Node{
			ID: m.ID, Node: m.Name, Address: address, Datacenter: m.Datacenter, TaggedAddresses: taggedAddresses(address),
			Meta: map[string]string{catalog.MetaSegment: "", catalog.MetaVersion: m.Tags[tagVersion]},
		}
	}
	if isServer(m) {
		member.Server = serverOf(m)
	}
	return member
}

// serverOf is what a member that is a server says of itself.
func serverOf(m *Member) *leader.Server {
	port, _ := strconv.Atoi(m.Tags[tagPort])
	expect, _ := strconv.Atoi(m.Tags[tagExpect])
	nonVoter := m.Tags[tagNonVoter] != ""
	return &leader.Server{
		Port: port, Meta: serverMeta(m.Tags[tagVersion], nonVoter), RaftID: m.Tags[tagRaft], Addr: linkAddr(m),
		Expect: expect, NonVoter: nonVoter,
	}
}

// serveServers answers what servers ask of one another at a path.
func (n *Node) serveServers(path string) rpc.HandlerFunc {
	return func(ctx context.Context, _ rpc.Caller, body []byte) (any, error) {
		s, _, _ := n.running()
		if s == nil || n.isLeaving() && path == server.PathHealth { // who answers is taken in
			return nil, errNoServer
		}
		return s.Answer(ctx, path, func(into any) error { return rpc.Decode(body, into) })
	}
}
