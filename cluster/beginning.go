package cluster

import (
	"context"
	"errors"
	"path/filepath"

	"meibo/cluster/gossip"
	"meibo/cluster/link"
)

// newBootstrapOf is how the server finds out with others who begins.
func (n *Node) newBootstrapOf(s *server) (*bootstrap, error) {
	self := bootstrapMember{
		Name: n.cfg.NodeName, NodeID: n.cfg.NodeID, RaftID: s.id, Addr: n.raftAddr(), Expect: n.cfg.BootstrapExpect,
	}
	var store promiseStore = inMemory{}
	if n.cfg.DataDir != "" {
		store = promiseIn(filepath.Join(n.cfg.DataDir, raftDir, promiseFile))
	}
	return newBootstrap(bootstrapConfig{
		Self: self, Members: n.bootstrapMembers, Replica: s.replica, Store: store, Logger: n.logger,
		Call: func(ctx context.Context, addr, path string, in, out any) error {
			w, _ := n.network()
			if w == nil {
				return ErrAlone
			}
			return w.carrier.Call(ctx, false, addr, path, in, out)
		},
	})
}

// bootstrapMembers are the living servers of this datacenter that have said by
// what ID they go.
func (n *Node) bootstrapMembers() ([]bootstrapMember, <-chan struct{}) {
	w, netChanged := n.network()
	if w == nil {
		return nil, netChanged
	}
	members, changed := w.gossip.Members()
	var servers []bootstrapMember
	for _, m := range members {
		if !isServer(m) || m.Status != gossip.Alive || m.Datacenter != n.cfg.Datacenter || m.Tags[tagRaft] == "" {
			continue
		}
		s := serverOf(m)
		servers = append(servers, bootstrapMember{
			Name: m.Name, NodeID: m.ID, RaftID: s.RaftID, Addr: s.Addr, Expect: s.Expect, NonVoter: s.NonVoter, InCluster: m.Tags[tagHistory] != "",
		})
	}
	return servers, changed
}

// bootstrapFor answers what another server asks about who begins.
func (n *Node) bootstrapFor(path string) internalHandler {
	return func(ctx context.Context, _ link.Peer, body []byte) (any, error) {
		s, _, _ := n.running()
		if s == nil || s.boot == nil {
			return nil, errors.New("this host does not take part in the beginning of a cluster at present")
		}
		select {
		case <-s.replica.Opened():
		case <-ctx.Done():
			return nil, ctx.Err() // whether it belongs to one is not known yet
		}
		return s.boot.answer(ctx, path, func(into any) error { return decodeCall(body, into) })
	}
}
