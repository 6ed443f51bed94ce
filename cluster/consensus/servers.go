package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
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
	return rf != nil && r.identity.cluster() == "" && rf.LastIndex() == 0
}

// Bootstrap begins a cluster of these servers and this one. Exactly one
// server may do it, and the others must be empty: each call makes another
// cluster, and servers of different ones refuse each other. This server leads
// at once, alone, and gives the others their votes when it has reached them
// and they have caught up, as far as their entries ask for one.
// [ErrNotEmpty] if it belongs to a cluster already.
func (r *Replica) Bootstrap(servers []Server) error {
	rf := r.raft.Load()
	if rf == nil {
		return errNotRunning
	}
	r.expect(servers)
	err := r.identity.begin(func() error {
		return r.await(rf.BootstrapCluster(r.firstConfiguration(servers)))
	})
	if errors.Is(err, raft.ErrCantBootstrap) {
		err = ErrNotEmpty
	}
	if err != nil {
		r.expect(nil)
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	r.electAlone(rf)
	return nil
}

// await waits for a future that a fault may leave unanswered for ever.
func (r *Replica) await(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.guard.released:
		return errNotRunning
	}
}

// expect takes down who shall be given a vote once this server leads.
func (r *Replica) expect(servers []Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected = nil
	for _, s := range servers {
		if s.Voter && s.ID != r.cfg.ID {
			r.expected = append(r.expected, s)
		}
	}
}

// addExpected gives those their votes who were there at the beginning. Should
// this server end before, it is the caller's to add them.
func (r *Replica) addExpected(ctx context.Context) {
	r.mu.Lock()
	expected := r.expected
	r.expected = nil
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range expected {
		wg.Go(func() {
			if err := r.AddServer(ctx, s); err != nil && ctx.Err() == nil {
				r.logger.Warn("raft server of the first hour has no vote yet", "peer", s.ID, "addr", s.Addr, "err", err)
			}
		})
	}
	wg.Wait()
}

// firstConfiguration has this server as the only voter.
func (r *Replica) firstConfiguration(servers []Server) raft.Configuration {
	c := configurationOf([]Server{{ID: r.cfg.ID, Addr: r.cfg.Addr, Voter: true}})
	for _, s := range servers {
		if s.ID != r.cfg.ID {
			s.Voter = false
			c.Servers = append(c.Servers, configurationOf([]Server{s}).Servers...)
		}
	}
	return c
}

// AddServer makes s a member of the cluster as it is described: it adds it,
// changes its address, gives it a vote or takes that away. Only the leader
// can. A new voter is a non-voter until it has the log, for two reasons: a
// majority must not hang on a server that lags, and one that has a vote and
// nothing else has lost its files. AddServer waits for that; when ctx ends
// first the server stays a non-voter.
func (r *Replica) AddServer(ctx context.Context, s Server) error {
	if s.ID == "" || s.Addr == "" {
		return fmt.Errorf("add raft server: ID %q, address %q: both are needed", s.ID, s.Addr)
	}
	now, member := find(r.Servers(), s.ID)
	if member && now == s {
		return nil
	}
	if err := r.makeRoom(ctx, s); err != nil {
		return err
	}
	if s.Voter && !now.Voter && s.ID != r.cfg.ID {
		if !member || now.Addr != s.Addr {
			if err := r.change(ctx, raft.AddNonvoter, s); err != nil {
				return err
			}
		}
		if err := r.awaitCaughtUp(ctx, s); err != nil {
			return err
		}
	}
	if !s.Voter && now.Voter {
		if err := r.change(ctx, raft.DemoteVoter, s); err != nil || now.Addr == s.Addr {
			return err
		}
	}
	if s.Voter {
		return r.change(ctx, raft.AddVoter, s)
	}
	return r.change(ctx, raft.AddNonvoter, s)
}

// makeRoom removes the former server of s's address, if there is one: a server
// that lost its files comes back under a new ID where it was. That s is there
// now is asked of itself.
func (r *Replica) makeRoom(ctx context.Context, s Server) error {
	for _, former := range r.Servers() {
		if former.Addr != s.Addr || former.ID == s.ID || !r.IsLeader() || r.stream == nil {
			continue
		}
		if _, err := r.inquire(s); err != nil {
			return fmt.Errorf("add raft server %s at the address of %s: %w", s.ID, former.ID, err)
		}
		if err := r.RemoveServer(ctx, former.ID); err != nil {
			return err
		}
	}
	return nil
}

// change makes one change of the configuration.
func (r *Replica) change(ctx context.Context, what raft.ConfigurationChangeCommand, s Server) error {
	// Raft refuses it too, in words that don't tell it from what may have happened.
	isOther := func(one Server) bool { return one.Voter && one.ID != s.ID }
	if (what == raft.RemoveServer || what == raft.DemoteVoter) && r.IsLeader() && !slices.ContainsFunc(r.Servers(), isOther) {
		return fmt.Errorf("%w, and %s is the only one: nothing was changed", ErrLastVoter, s.ID)
	}
	return r.propose(ctx, 0, func(rf *raft.Raft) error {
		id, addr := raft.ServerID(s.ID), raft.ServerAddress(s.Addr)
		var f raft.IndexFuture
		switch what {
		case raft.AddVoter:
			f = rf.AddVoter(id, addr, 0, enqueueTimeout)
		case raft.AddNonvoter:
			f = rf.AddNonvoter(id, addr, 0, enqueueTimeout)
		case raft.DemoteVoter:
			f = rf.DemoteVoter(id, 0, enqueueTimeout)
		default:
			f = rf.RemoveServer(id, 0, enqueueTimeout)
		}
		return outcome(f.Error())
	})
}

const (
	// caughtUp is how many entries a new voter may be behind: it gets so many
	// in one message.
	caughtUp = 64
	// caughtUpInterval is how often a new server is asked how far it is.
	caughtUpInterval = 20 * time.Millisecond
)

// awaitCaughtUp waits until s has this cluster's ID in its files, and nearly
// all entries.
func (r *Replica) awaitCaughtUp(ctx context.Context, s Server) error {
	if r.stream == nil {
		return fmt.Errorf("add raft server %s: this server has no network", s.ID)
	}
	var last error
	for {
		rf := r.raft.Load()
		if rf == nil || rf.State() != raft.Leader {
			return ErrNoLeader
		}
		a, err := r.inquire(s)
		if err == nil && a.Cluster == r.identity.cluster() && a.Last+caughtUp >= rf.LastIndex() {
			return nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("it has %d of %d entries", a.Last, rf.LastIndex())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("raft server %s has no vote yet: %w: %w", s.ID, context.Cause(ctx), last)
		case <-time.After(caughtUpInterval):
		}
	}
}

// RemoveServer takes a server out of the cluster; one that isn't there is no
// error. Only the leader can. The server's own Run returns [ErrRemoved], at
// once or when it has learnt of it. A leader that is to go should hand
// leadership over first.
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	s, member := find(r.Servers(), id)
	if !member && r.IsLeader() {
		return nil
	}
	err := r.change(ctx, raft.RemoveServer, s)
	if err == nil && id == r.cfg.ID {
		r.guard.report(ErrRemoved)
	}
	return err
}

// TransferLeadership makes another voter lead: the one of this ID, or, if id
// is empty, the one that has most of the log. Only the leader can. Writes are
// refused meanwhile with [ErrNoLeader].
func (r *Replica) TransferLeadership(ctx context.Context, id string) error {
	return r.propose(ctx, 0, func(rf *raft.Raft) error { return r.transfer(rf, id) })
}

func (r *Replica) transfer(rf *raft.Raft, id string) error {
	var f raft.Future
	others := func(s Server) bool { return s.Voter && s.ID != r.cfg.ID }
	if id == "" && !slices.ContainsFunc(r.Servers(), others) {
		return errors.New("transfer leadership: no other server has a vote, so this one goes on leading: add a server first, and wait until it is a voter")
	}
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
		return errNotRunning
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
func (r *Replica) ClusterID() string { return r.identity.cluster() }
