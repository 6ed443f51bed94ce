package server

import (
	"context"
	"path/filepath"

	"meibo/cluster/bootstrap"
	"meibo/cluster/consensus"
)

// newBootstrap is how the server finds out with others who begins.
func (s *Server) newBootstrap() (*bootstrap.Bootstrap, error) {
	self := s.cfg.Self().Node
	var store bootstrap.VoteStore = bootstrap.Memory{}
	if s.cfg.Dir != "" {
		store = bootstrap.File(filepath.Join(s.cfg.Dir, bootstrap.FileName))
	}
	return bootstrap.New(bootstrap.Config{
		Self:    bootstrap.Member{Name: self.Node, NodeID: self.ID, RaftID: s.id, Addr: s.cfg.Addr, Expect: s.cfg.Expect},
		Members: s.bootstrapMembers, Replica: bootReplica{s.replica}, Store: store, Logger: s.logger,
		Call: func(ctx context.Context, addr, path string, in, out any) error {
			return s.cfg.Network.Call(ctx, false, addr, path, in, out)
		},
	})
}

// bootstrapMembers are the living servers of this datacenter that have said by
// what ID they go.
func (s *Server) bootstrapMembers() ([]bootstrap.Member, <-chan struct{}) {
	peers, changed := s.cfg.Network.Peers()
	var servers []bootstrap.Member
	for _, p := range peers {
		if p.Alive && p.Datacenter == s.cfg.Self().Node.Datacenter && p.RaftID != "" {
			servers = append(servers, p.Member)
		}
	}
	return servers, changed
}

// runBootstrap finds out with others who begins a cluster, once it is known that
// this server belongs to none.
func (s *Server) runBootstrap(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.replica.Opened():
		return s.boot.Run(ctx)
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
