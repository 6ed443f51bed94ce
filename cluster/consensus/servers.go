package consensus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
)

// Server is a member of the cluster's configuration.
type Server struct {
	ID, Addr string
	Voter    bool
}

// Servers returns the latest configuration of the cluster, which need not be
// committed; nil while Run isn't running.
func (r *Replica) Servers() []Server {
	rf := r.raft.Load()
	if rf == nil {
		return nil
	}
	return serversOf(rf.GetConfiguration().Configuration())
}

func serversOf(c raft.Configuration) []Server {
	var servers []Server
	for _, s := range c.Servers {
		servers = append(servers, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

// find returns the server of this ID.
func find(servers []Server, id string) (Server, bool) {
	for _, s := range servers {
		if s.ID == id {
			return s, true
		}
	}
	return Server{}, false
}

// Empty reports whether this server runs and belongs to no cluster: it has no
// log, no snapshot, and no leader has called on it. It waits to be added, or
// to be told to begin.
func (r *Replica) Empty() bool {
	rf := r.raft.Load()
	return rf != nil && rf.LastIndex() == 0 && len(r.Servers()) == 0
}

// Bootstrap begins a cluster of these servers, this one among them or not.
// Exactly one server may do it, and the others must be empty: each call makes
// another cluster, and servers of different ones refuse each other. This
// server leads at once, and gives the others their votes when they are there
// and have caught up. [ErrNotEmpty] if it belongs to a cluster already.
func (r *Replica) Bootstrap(servers []Server) error {
	rf := r.raft.Load()
	if rf == nil {
		return ErrNoLeader
	}
	return r.bootstrap(rf, servers)
}

func (r *Replica) bootstrap(rf *raft.Raft, servers []Server) error {
	err := rf.BootstrapCluster(r.firstConfiguration(servers)).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return ErrNotEmpty
	}
	return err
}

// firstConfiguration is that of this server as the only voter.
func (r *Replica) firstConfiguration(servers []Server) raft.Configuration {
	c := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.cfg.ID), Address: raft.ServerAddress(r.cfg.Addr)}}}
	for _, s := range servers {
		if s.ID != r.cfg.ID {
			c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Nonvoter, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
		}
	}
	return c
}

// AddServer makes s a member of the cluster as it is described: it adds it,
// changes its address, gives it a vote or takes that away. Only the leader
// can.
func (r *Replica) AddServer(ctx context.Context, s Server) error {
	return r.propose(ctx, 0, func(rf *raft.Raft) error {
		id, addr := raft.ServerID(s.ID), raft.ServerAddress(s.Addr)
		if s.Voter {
			return outcome(rf.AddVoter(id, addr, 0, enqueueTimeout).Error())
		}
		return outcome(rf.AddNonvoter(id, addr, 0, enqueueTimeout).Error())
	})
}

// RemoveServer takes a server out of the cluster; one that isn't there is no
// error. Only the leader can. The server's own Run returns [ErrRemoved].
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	return r.propose(ctx, 0, func(rf *raft.Raft) error {
		return outcome(rf.RemoveServer(raft.ServerID(id), 0, enqueueTimeout).Error())
	})
}

// TransferLeadership makes another voter lead: the one of this ID, or, if id
// is empty, the one that has most of the log. Only the leader can. Writes are
// refused meanwhile with [ErrNoLeader].
func (r *Replica) TransferLeadership(ctx context.Context, id string) error {
	return r.propose(ctx, 0, func(rf *raft.Raft) error { return r.transfer(rf, id) })
}

func (r *Replica) transfer(rf *raft.Raft, id string) error {
	var f raft.Future
	if id == "" {
		f = rf.LeadershipTransfer()
	} else {
		s, ok := find(r.Servers(), id)
		if !ok {
			return fmt.Errorf("transfer leadership: there is no server %s", id)
		}
		f = rf.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Addr))
	}
	err := f.Error()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNoLeader
	}
	return fmt.Errorf("transfer leadership: %w", err)
}

// SetTimeouts changes Raft's timeouts from now on: to those that suit the
// round trip between the servers. The lease stays as configured, and heartbeat
// must not be shorter than it, nor election shorter than heartbeat.
func (r *Replica) SetTimeouts(heartbeat, election time.Duration) error {
	rf := r.raft.Load()
	if rf == nil {
		return ErrNoLeader
	}
	c := rf.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = heartbeat, election
	if err := rf.ReloadConfig(c); err != nil {
		return fmt.Errorf("set raft timeouts to %v, %v: %w", heartbeat, election, err)
	}
	return nil
}

// LastContact returns how long ago a leader was heard: 0 on the leader
// itself. It reports false if that was never, or Run isn't running.
func (r *Replica) LastContact() (time.Duration, bool) {
	rf := r.raft.Load()
	if rf == nil {
		return 0, false
	}
	if rf.State() == raft.Leader {
		return 0, true
	}
	last := rf.LastContact()
	return time.Since(last), !last.IsZero()
}

// LastIndex returns index and term of the last entry in log or snapshot, 0
// and 0 while Run isn't running. It need not be committed.
func (r *Replica) LastIndex() (index, term uint64) {
	stats := r.Stats()
	for _, kind := range []string{"log", "snapshot"} {
		i, _ := strconv.ParseUint(stats["last_"+kind+"_index"], 10, 64)
		t, _ := strconv.ParseUint(stats["last_"+kind+"_term"], 10, 64)
		if i > index {
			index, term = i, t
		}
	}
	return index, term
}

// Committed is the index of the last entry that is committed, as far as this
// server knows; 0 while Run isn't running.
func (r *Replica) Committed() uint64 {
	rf := r.raft.Load()
	if rf == nil {
		return 0
	}
	return rf.CommitIndex()
}

// Recovered reports whether Config.Recover replaced the configuration when
// Run opened the files. Entries may be lost, and others that nobody was told
// of may have come to be: once this server leads, the catalog must begin a new
// history.
func (r *Replica) Recovered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recovered
}

// ClusterID names the bootstrap that this server's cluster comes from; empty
// while it belongs to none, or Run has not begun. Servers of different ones
// refuse each other.
func (r *Replica) ClusterID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clusterID
}
