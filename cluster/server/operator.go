package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/leader"
)

// ErrUnknownServer means that the servers' configuration holds no such server.
var ErrUnknownServer = errors.New("no such server in the Raft configuration")

// RaftServer is one server of the configuration, as this host knows it.
type RaftServer struct {
	consensus.Server        // ID is its node's
	RaftID           string // its ID in the configuration, if that is another
	Node             string // its name; empty if gossip doesn't know it
	Leading          bool
}

// Configuration returns the servers' configuration and the index of the entry in the
// log that made it.
func (s *Server) Configuration() ([]RaftServer, uint64) {
	lead, _ := s.replica.Leadership()
	known := s.nodes()
	var servers []RaftServer
	for _, one := range s.replica.Servers() {
		node := known[one.ID]
		shown := RaftServer{Server: one, Node: node.name, Leading: one.ID == lead.LeaderID}
		if node.id != "" && node.id != one.ID {
			shown.ID, shown.RaftID = node.id, one.ID
		}
		servers = append(servers, shown)
	}
	index, _ := s.configurationIndex()
	return servers, index
}

func (s *Server) configurationIndex() (index uint64, ok bool) {
	index, err := strconv.ParseUint(s.replica.Stats()["latest_configuration_index"], 10, 64)
	return index, err == nil
}

// serverNode is the node that a server of the configuration is.
type serverNode struct{ id, name string }

// nodes tells of each server ID which node it is, as far as gossip knows. Servers are
// shown by the IDs of their nodes, as operators know them; one whose Raft files were
// lost is in the configuration under an ID that has never voted. The ID of a node
// that is another entry's own is not given away.
func (s *Server) nodes() map[string]serverNode {
	nodes := make(map[string]serverNode)
	if s.cfg.Network != nil {
		peers, _ := s.cfg.Network.Peers()
		for _, p := range peers {
			nodes[cmp.Or(p.RaftID, p.NodeID)] = serverNode{p.NodeID, p.Name}
		}
	}
	self := s.cfg.Self().Node
	nodes[s.id] = serverNode{self.ID, self.Node}
	conf := s.replica.Servers()
	for raftID, node := range nodes {
		if raftID != node.id && slices.ContainsFunc(conf, func(one consensus.Server) bool { return one.ID == node.id }) {
			nodes[raftID] = serverNode{raftID, node.name}
		}
	}
	return nodes
}

// raftID is the ID in the configuration of the server that operators call id.
func (s *Server) raftID(id string) string {
	known := s.nodes()
	for _, one := range s.replica.Servers() {
		if id != "" && known[one.ID].id == id {
			return one.ID
		}
	}
	return id
}

// addressOf is where the server of an ID in the configuration is now, if gossip knows
// it.
func (s *Server) addressOf(raftID string) (string, bool) {
	peers, _ := s.cfg.Network.Peers()
	for _, p := range peers {
		if cmp.Or(p.RaftID, p.NodeID) == raftID {
			return p.Addr, true
		}
	}
	return "", false
}

// peersWithCatalog are the link addresses of living servers that follow a catalog.
func (s *Server) peersWithCatalog() (addrs []string) {
	for _, p := range s.livingPeers() {
		if p.InCluster {
			addrs = append(addrs, p.Addr)
		}
	}
	return addrs
}

// RemovePeer takes a server out of the configuration, by its ID or, where that is
// empty, by its address. Only the leader can: catalog.ErrNoLeader.
func (s *Server) RemovePeer(ctx context.Context, id, addr string) error {
	id = s.raftID(id)
	for _, one := range s.replica.Servers() {
		if id != "" && one.ID == id || id == "" && one.Addr == addr {
			return inCatalogTerms(s.replica.RemoveServer(ctx, one.ID))
		}
	}
	return fmt.Errorf("%w: id %q, address %q", ErrUnknownServer, id, addr)
}

// TransferLeader hands leadership to the server of that ID, or to any. Only the leader
// can: catalog.ErrNoLeader.
func (s *Server) TransferLeader(ctx context.Context, id string) error {
	raftID := s.raftID(id)
	if id != "" && !slices.ContainsFunc(s.replica.Servers(), func(one consensus.Server) bool { return one.ID == raftID }) {
		return fmt.Errorf("%w: id %q", ErrUnknownServer, id)
	}
	return inCatalogTerms(s.replica.TransferLeadership(ctx, raftID))
}

// AutopilotHealth is what the leader knows of the servers. catalog.ErrNoLeader on any
// other.
func (s *Server) AutopilotHealth() (leader.AutopilotHealth, error) {
	l := s.leader.Load()
	if l == nil {
		return leader.AutopilotHealth{}, catalog.ErrNoLeader
	}
	health := *l.Health()
	if len(health.Servers) == 0 {
		var err error
		if health, err = s.healthAlone(); err != nil {
			return health, err
		}
	}
	known := s.nodes()
	health.Servers = slices.Clone(health.Servers)
	for i := range health.Servers {
		one := &health.Servers[i]
		one.ID = cmp.Or(known[one.ID].id, one.ID)
	}
	return health, nil
}

// errNotLooked: right after an election the leader has yet to ask the servers.
var errNotLooked = errors.New("the leader has only begun and hasn't asked the servers yet: try again")

// healthAlone is the health of servers that autopilot leaves alone: of the one there is.
func (s *Server) healthAlone() (leader.AutopilotHealth, error) {
	servers := s.replica.Servers()
	if len(servers) != 1 || servers[0].ID != s.id {
		return leader.AutopilotHealth{}, errNotLooked
	}
	node := s.cfg.Self().Node
	self := leader.ServerState{
		ID: s.id, Name: node.Node, Address: servers[0].Addr, SerfStatus: "alive", Version: node.Meta[catalog.MetaVersion],
		Leader: true, Healthy: true, Voter: true, StableSince: s.begun,
	}
	self.LastIndex, self.LastTerm = s.replica.LastIndex()
	return leader.AutopilotHealth{Healthy: true, Servers: []leader.ServerState{self}}, nil
}

// leaveTimeout bounds how long a server that leaves waits for the others.
const leaveTimeout = 5 * time.Second

// Leave gives up this server's vote, by way of the leader, if there are other servers;
// then it ends with [ErrVoteGivenUp].
func (s *Server) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if s.Leads() {
		if err := s.replica.TransferLeadership(ctx, ""); err != nil {
			return err
		}
	}
	if err := s.cfg.Network.Call(ctx, true, "", pathLeave, &leaveRequest{RaftID: s.id}, nil); err != nil {
		return err
	}
	s.end(ErrVoteGivenUp) // a leader takes in whom it sees and who runs
	return nil
}

// raftServers is the servers' configuration as the leader's loop sees it.
type raftServers struct{ *Server }

// Configuration implements leader.Servers.
func (s raftServers) Configuration() (servers []leader.RaftServer, committed bool) {
	for _, one := range s.replica.Servers() {
		servers = append(servers, leader.RaftServer(one))
	}
	index, ok := s.configurationIndex()
	return servers, ok && index <= s.replica.Committed()
}

// Add implements leader.Servers.
func (s raftServers) Add(ctx context.Context, one leader.RaftServer) error {
	return s.replica.AddServer(ctx, consensus.Server(one))
}

// Remove implements leader.Servers.
func (s raftServers) Remove(ctx context.Context, id string) error {
	return s.replica.RemoveServer(ctx, id)
}

// Health implements leader.Servers.
func (s raftServers) Health(ctx context.Context, addr string) (leader.ServerHealth, error) {
	if addr == s.cfg.Addr {
		return s.health(), nil
	}
	var health leader.ServerHealth
	err := s.cfg.Network.Call(ctx, false, addr, PathHealth, nil, &health)
	return health, err
}

// health is what this server says of itself.
func (s *Server) health() leader.ServerHealth {
	h := leader.ServerHealth{RaftID: s.id, ClusterID: s.replica.ClusterID(), LastContact: -1}
	if last, ok := s.replica.LastContact(); ok {
		h.LastContact = last
	}
	h.LastIndex, h.LastTerm = s.replica.LastIndex()
	if s.boot != nil {
		h.Promised = s.boot.VotedFor()
	}
	return h
}
