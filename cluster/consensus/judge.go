package consensus

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// committedConfiguration is the newest configuration of which it is certain that it is
// committed.
type committedConfiguration struct {
	mu      sync.Mutex // guards following
	index   uint64
	servers []Server
}

func (c *committedConfiguration) record(index uint64, conf raft.Configuration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index > c.index {
		c.index, c.servers = index, serversOf(conf)
	}
}

func (c *committedConfiguration) has(id string) (index uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok = find(c.servers, id)
	return c.index, ok
}

// introduction is this server's answer to h.
func (r *Replica) introduction(h hello) reply {
	a := reply{Cluster: r.identity.cluster(), From: r.cfg.ID}
	rf := r.raft.Load()
	switch {
	case rf == nil:
		a.refused = refused{noCluster, fmt.Sprintf("server %s is stopping", r.cfg.ID)}
		return a
	case h.To != r.cfg.ID:
		a.refused = refused{otherServer, fmt.Sprintf("here is server %s, not %s", r.cfg.ID, h.To)}
	case a.Cluster != "" && h.Cluster != "" && a.Cluster != h.Cluster:
		a.refused = refused{otherCluster, fmt.Sprintf("server %s is of cluster %s, server %s of cluster %s: two bootstraps", r.cfg.ID, a.Cluster, h.From, h.Cluster)}
	case h.Cluster == "":
		a.refused = refused{noCluster, fmt.Sprintf("server %s belongs to no cluster", h.From)}
	}
	a.Last, a.Term = rf.LastIndex(), rf.CurrentTerm()
	a.Leading = rf.State() == raft.Leader // asked after the term
	a.Config, a.Member = r.committedConf.has(h.From)
	if _, ok := find(r.Servers(), h.From); ok {
		a.Member = true
	}
	return a
}

// judge says whether who dialled, this server, goes on. A server that has a
// vote and no cluster has lost its files: whatever it acknowledged is gone,
// and with its vote a majority could form that never saw it. Nobody is given
// a vote before it has a cluster (see [Replica.AddServer]), so this is certain.
func (r *Replica) judge(own hello, a reply) refused {
	s, _ := find(r.Servers(), own.To)
	switch {
	case a.From != own.To:
		return refused{otherServer, fmt.Sprintf("there is server %s, not %s", a.From, own.To)}
	case a.Cluster == "" && s.Voter:
		return refused{retiredID, fmt.Sprintf("server %s has a vote, and its Raft files are gone: it must come back under a new ID", own.To)}
	case a.Cluster != "" && a.Cluster != own.Cluster:
		return refused{otherCluster, fmt.Sprintf("server %s is of cluster %s, this one of cluster %s: two bootstraps", own.To, a.Cluster, own.Cluster)}
	}
	return refused{}
}

// hear takes from another's answer whether this server was removed: a leader
// of this term or a later one doesn't know it, or a configuration that is
// committed and newer than all this server has lacks it.
func (r *Replica) hear(a reply) {
	rf := r.raft.Load()
	own := r.identity.cluster()
	if rf == nil || a.Member || own == "" || a.Cluster != own || r.waitsToBeAdded(rf) {
		return
	}
	if a.Leading && a.Term >= rf.CurrentTerm() || a.Config > rf.LastIndex() {
		r.guard.report(fmt.Errorf("%w, says server %s", ErrRemoved, a.From))
	}
}
