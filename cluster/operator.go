package cluster

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/leader"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
	"meibo/cluster/rpc"
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

// RaftConfiguration returns the servers' configuration and the index of the
// entry in the log that made it. catalog.ErrNoLeader on a host that has none.
func (n *Node) RaftConfiguration() ([]RaftServer, uint64, error) {
	s, _, _ := n.running()
	if s == nil {
		return nil, 0, catalog.ErrNoLeader
	}
	lead, _ := s.replica.Leadership()
	known := s.nodes()
	var servers []RaftServer
	for _, one := range s.replica.Servers() {
		leading := one.ID == lead.LeaderID
		node := known[one.ID]
		shown := RaftServer{Server: one, Node: node.name, Leading: leading}
		if node.id != "" && node.id != one.ID {
			shown.ID, shown.RaftID = node.id, one.ID
		}
		servers = append(servers, shown)
	}
	index, _ := strconv.ParseUint(s.replica.Stats()["latest_configuration_index"], 10, 64)
	return servers, index, nil
}

// serverNode is the node that a server of the configuration is.
type serverNode struct{ id, name string }

// nodes tells of each server ID which node it is, as far as gossip knows. Servers are
// shown by the IDs of their nodes, as operators know them; one whose Raft files were
// lost is in the configuration under an ID that has never voted. The ID of a node
// that is another entry's own is not given away.
func (s *server) nodes() map[string]serverNode {
	nodes := make(map[string]serverNode)
	for _, m := range s.node.Members() {
		nodes[cmp.Or(m.Tags[tagRaft], m.ID)] = serverNode{m.ID, m.Name}
	}
	nodes[s.id] = serverNode{s.node.cfg.NodeID, s.node.cfg.NodeName}
	conf := s.replica.Servers()
	for raftID, node := range nodes {
		if raftID != node.id && slices.ContainsFunc(conf, func(one consensus.Server) bool { return one.ID == node.id }) {
			nodes[raftID] = serverNode{raftID, node.name}
		}
	}
	return nodes
}

// raftID is the ID in the configuration of the server that operators call id.
func (s *server) raftID(id string) string {
	known := s.nodes()
	for _, one := range s.replica.Servers() {
		if id != "" && known[one.ID].id == id {
			return one.ID
		}
	}
	return id
}

// RemovePeer takes a server out of the configuration, by its ID or, where that
// is empty, by its address. Only the leader can: catalog.ErrNoLeader.
func (n *Node) RemovePeer(ctx context.Context, id, addr string) error {
	s, err := n.leading(ctx)
	if err != nil {
		return err
	}
	id = s.raftID(id)
	for _, one := range s.replica.Servers() {
		if id != "" && one.ID == id || id == "" && one.Addr == addr {
			return inCatalogTerms(s.replica.RemoveServer(ctx, one.ID))
		}
	}
	return fmt.Errorf("%w: id %q, address %q", ErrUnknownServer, id, addr)
}

// TransferLeader hands leadership to the server of that ID, or to any. Only the
// leader can: catalog.ErrNoLeader.
func (n *Node) TransferLeader(ctx context.Context, id string) error {
	s, err := n.leading(ctx)
	if err != nil {
		return err
	}
	raftID := s.raftID(id)
	if id != "" && !slices.ContainsFunc(s.replica.Servers(), func(one consensus.Server) bool { return one.ID == raftID }) {
		return fmt.Errorf("%w: id %q", ErrUnknownServer, id)
	}
	return inCatalogTerms(s.replica.TransferLeadership(ctx, raftID))
}

// AutopilotConfig is how the servers are tended, as this server's catalog has it:
// nil right after it began. catalog.ErrNoLeader on a host that is no server.
func (n *Node) AutopilotConfig() (*catalog.Autopilot, error) {
	s, _, _ := n.running()
	if s == nil {
		return nil, catalog.ErrNoLeader
	}
	_, c := s.store.Read().Autopilot(nil)
	return c, nil
}

// AutopilotHealth is what the leader knows of the servers. catalog.ErrNoLeader on any
// other host.
func (n *Node) AutopilotHealth() (leader.AutopilotHealth, error) {
	s, _, _ := n.running()
	if s == nil {
		return leader.AutopilotHealth{}, catalog.ErrNoLeader
	}
	duties := s.duties.Load()
	if duties == nil {
		return leader.AutopilotHealth{}, catalog.ErrNoLeader
	}
	health := *duties.Health()
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

// healthAlone is the health of servers that nobody tends: of the one there is.
func (s *server) healthAlone() (leader.AutopilotHealth, error) {
	servers := s.replica.Servers()
	if len(servers) != 1 || servers[0].ID != s.id {
		return leader.AutopilotHealth{}, errNotLooked
	}
	self := leader.ServerState{
		ID: s.id, Name: s.node.cfg.NodeName, Address: servers[0].Addr, SerfStatus: "alive", Version: s.node.cfg.Version,
		Leader: true, Healthy: true, Voter: true, StableSince: s.node.Status().Since,
	}
	self.LastIndex, self.LastTerm = s.replica.LastIndex()
	return leader.AutopilotHealth{Healthy: true, Servers: []leader.ServerState{self}}, nil
}

// leaveRaft takes this server out of the configuration, by way of the leader.
func (s *server) leaveRaft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if s.leads() {
		if err := s.replica.TransferLeadership(ctx, ""); err != nil {
			return err
		}
	}
	w, _ := s.node.network()
	if w == nil {
		return ErrAlone
	}
	return w.rpc.Call(ctx, true, "", pathLeave, &leaveRequest{RaftID: s.id}, nil)
}

// ledServers is the servers' configuration as the leader's duties see it.
type ledServers struct{ *server }

// Configuration implements leader.Servers.
func (s ledServers) Configuration() (servers []leader.RaftServer, committed bool) {
	for _, one := range s.replica.Servers() {
		servers = append(servers, leader.RaftServer(one))
	}
	index, err := strconv.ParseUint(s.replica.Stats()["latest_configuration_index"], 10, 64)
	return servers, err == nil && index <= s.replica.Committed()
}

// Add implements leader.Servers.
func (s ledServers) Add(ctx context.Context, one leader.RaftServer) error {
	return s.replica.AddServer(ctx, consensus.Server(one))
}

// Remove implements leader.Servers.
func (s ledServers) Remove(ctx context.Context, id string) error {
	return s.replica.RemoveServer(ctx, id)
}

// Health implements leader.Servers.
func (s ledServers) Health(ctx context.Context, addr string) (leader.ServerHealth, error) {
	if addr == s.node.raftAddr() {
		return s.health(), nil
	}
	w, _ := s.node.network()
	if w == nil {
		return leader.ServerHealth{}, ErrAlone
	}
	var health leader.ServerHealth
	err := w.rpc.Call(ctx, false, addr, pathHealth, nil, &health)
	return health, err
}

// health is what this server says of itself.
func (s *server) health() leader.ServerHealth {
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

// KeyringOp is what to do with the keys of gossip and link.
type KeyringOp string

// The operations.
const (
	KeyringList    KeyringOp = "list"
	KeyringInstall KeyringOp = "install"
	KeyringUse     KeyringOp = "use"
	KeyringRemove  KeyringOp = "remove"
)

// KeyringAnswer is what one host said.
type KeyringAnswer struct {
	Node string
	Err  string   // why it could not do it; empty: it did
	Down bool     // the host is failed, and was not asked
	Keys []string // in base64, the primary first
}

// keyringTimeout bounds the wait for one host, keyringAgain is how long after a
// lost answer it is asked again, keyringAtOnce how many are asked at a time.
const (
	keyringTimeout = 5 * time.Second
	keyringAgain   = 50 * time.Millisecond
	keyringAtOnce  = 32
)

// Keyring carries out op, with a key in base64, on every living member of the
// cluster, or on this host alone, and returns what each said.
func (n *Node) Keyring(ctx context.Context, op KeyringOp, key string, alone bool) ([]KeyringAnswer, error) {
	if op != KeyringList {
		if _, err := base64.StdEncoding.DecodeString(key); err != nil || key == "" {
			return nil, fmt.Errorf("the key must be base64 of 16, 24 or 32 bytes: %q isn't", key)
		}
	}
	w, _ := n.network()
	if w == nil || alone {
		return []KeyringAnswer{n.ownKeyring(op, key)}, nil
	}
	var (
		mu      sync.Mutex // guards answers
		answers []KeyringAnswer
		wg      sync.WaitGroup
		slots   = make(chan struct{}, keyringAtOnce)
	)
	for _, m := range n.Members() {
		if m.ID == n.cfg.NodeID || m.Status == membership.Left || m.Status == membership.NeverSeen {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer := w.askKeyring(ctx, m, op, key)
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, answer)
		})
	}
	wg.Wait()
	// This host comes last: connections under a key that it removes are cut.
	return append(answers, n.ownKeyring(op, key)), nil
}

// askKeyring has one member carry out op. A member that removes a key cuts the
// connections under it, maybe before its answer is out, so it is asked again; a
// connection that is cut may still be the one that the next try takes. Every op
// may be carried out twice.
func (w *network) askKeyring(ctx context.Context, m *Member, op KeyringOp, key string) KeyringAnswer {
	answer := KeyringAnswer{Node: m.Name}
	if m.Status == membership.Failed && m.HeldUntil.IsZero() { // one that is held down answers
		answer.Down = true
		return answer
	}
	ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
	defer cancel()
	ask := func() error {
		return w.rpc.Call(ctx, false, linkAddr(m), pathKeyring, &keyringRequest{Op: op, Key: key}, &answer)
	}
	err := ask()
	var lost *rpc.LostError
	for errors.As(err, &lost) && lost.Sent && retry.Wait(ctx, keyringAgain) {
		err = ask()
	}
	if err != nil {
		answer.Err = err.Error()
	}
	answer.Node = m.Name
	return answer
}

// ownKeyring carries out op on this host.
func (n *Node) ownKeyring(op KeyringOp, key string) KeyringAnswer {
	answer := KeyringAnswer{Node: n.cfg.NodeName}
	if keys, _ := n.keyring.Keys(); len(keys) == 0 {
		// The first key must be there before hosts meet: one that began to
		// encrypt by itself would be alone. The words are Serf's.
		answer.Err = "Keyring is empty (encryption not enabled)"
		return answer
	}
	raw, _ := base64.StdEncoding.DecodeString(key)
	var err error
	switch op {
	case KeyringList:
	case KeyringInstall:
		err = n.keyring.Install(raw)
	case KeyringUse:
		err = n.keyring.Use(raw)
	case KeyringRemove:
		err = n.keyring.Remove(raw)
	default:
		err = fmt.Errorf("unknown keyring operation %q", op)
	}
	if err != nil {
		answer.Err = err.Error()
	} else if op != KeyringList {
		n.logger.Info("keyring changed", "op", op)
	}
	keys, _ := n.keyring.Keys()
	for _, k := range keys {
		answer.Keys = append(answer.Keys, base64.StdEncoding.EncodeToString(k))
	}
	return answer
}
