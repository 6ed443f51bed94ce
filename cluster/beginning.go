package cluster

import (
	"context"
	"errors"
	"path/filepath"

	"meibo/cluster/bootstrap"
	"meibo/cluster/consensus"
	"meibo/cluster/membership"
	"meibo/cluster/rpc"
)

// newBootstrapOf is how the server finds out with others who begins.
func (n *Node) newBootstrapOf(s *server) (*bootstrap.Bootstrap, error) {
	self := bootstrap.Member{
		Name: n.cfg.NodeName, NodeID: n.cfg.NodeID, RaftID: s.id, Addr: n.raftAddr(), Expect: n.cfg.BootstrapExpect,
	}
	var store bootstrap.VoteStore = bootstrap.Memory{}
	if n.cfg.DataDir != "" {
		store = bootstrap.File(filepath.Join(n.cfg.DataDir, raftDir, bootstrap.FileName))
	}
	return bootstrap.New(bootstrap.Config{
		Self: self, Members: n.bootstrapMembers, Replica: bootReplica{s.replica}, Store: store, Logger: n.logger,
		Call: func(ctx context.Context, addr, path string, in, out any) error {
			w, _ := n.network()
			if w == nil {
				return ErrAlone
			}
			return w.rpc.Call(ctx, false, addr, path, in, out)
		},
	})
}

// bootstrap.Members are the living servers of this datacenter that have said by
// what ID they go.
func (n *Node) bootstrapMembers() ([]bootstrap.Member, <-chan struct{}) {
	w, netChanged := n.network()
	if w == nil {
		return nil, netChanged
	}
	members := w.gossip.Members()
	var servers []bootstrap.Member
	for _, m := range members.Role(roleServer) {
		if m.Status != membership.Alive || m.Datacenter != n.cfg.Datacenter || m.Tags[tagRaft] == "" {
			continue
		}
		s := serverOf(m)
		servers = append(servers, bootstrap.Member{
			Name: m.Name, NodeID: m.ID, RaftID: s.RaftID, Addr: s.Addr, Expect: s.Expect, NonVoter: s.NonVoter, InCluster: m.Tags[tagHistory] != "",
		})
	}
	return servers, members.Changed()
}

// bootstrapFor answers what another server asks about who begins.
func (n *Node) bootstrapFor(path string) rpc.HandlerFunc {
	return func(ctx context.Context, _ rpc.Caller, body []byte) (any, error) {
		s, _, _ := n.running()
		if s == nil || s.boot == nil {
			return nil, errors.New("this host does not take part in the beginning of a cluster at present")
		}
		select {
		case <-s.replica.Opened():
		case <-ctx.Done():
			return nil, ctx.Err() // whether it belongs to one is not known yet
		}
		return s.boot.Answer(ctx, path, func(into any) error { return rpc.Decode(body, into) })
	}
}

// bootReplica is consensus as bootstrap sees it.
type bootReplica struct{ *consensus.Replica }

// Bootstrap implements bootstrap.Replica.
func (r bootReplica) Bootstrap(voters []bootstrap.Voter) error {
	servers := make([]consensus.Server, 0, len(voters))
	for _, v := range voters {
		servers = append(servers, consensus.Server{ID: v.ID, Addr: v.Addr, Voter: true})
	}
	return r.Replica.Bootstrap(servers)
}
