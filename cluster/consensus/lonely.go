package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// lonelyInterval is how often a server looks whether it is alone.
	lonelyInterval = 500 * time.Millisecond
	// askAgain is how long it then waits before it asks the others again.
	askAgain = 3 * time.Second
	// lonelyAfter is how many election timeouts without a leader are long.
	lonelyAfter = 4
)

// pollWhenLonely asks the other servers whether this one was removed, while it
// hears no leader or finds itself missing in the configuration: nobody calls
// on a removed server to say so. Their answers come to [Replica.hear].
func (r *Replica) pollWhenLonely(ctx context.Context, rf *raft.Raft) {
	if r.stream == nil {
		return
	}
	tick := time.NewTicker(lonelyInterval)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.isLonely(rf) && time.Since(asked) > askAgain {
			r.inquireAll()
			asked = time.Now()
		}
	}
}

func (r *Replica) isLonely(rf *raft.Raft) bool {
	servers := r.Servers()
	if rf.State() == raft.Leader || len(servers) == 0 || r.waitsToBeAdded(rf) {
		return false
	}
	if _, member := find(servers, r.cfg.ID); !member {
		return true
	}
	return time.Since(rf.LastContact()) > lonelyAfter*rf.ReloadableConfig().ElectionTimeout
}

// waitsToBeAdded reports whether this server knows that it was removed, and no
// leader has called on it since.
func (r *Replica) waitsToBeAdded(rf *raft.Raft) bool {
	if r.removed.Load() && !rf.LastContact().IsZero() {
		r.removed.Store(false)
	}
	return r.removed.Load()
}

// expectsNoLeader reports whether no leader is to call on this server.
func (r *Replica) expectsNoLeader() bool { return r.isAlone() || r.removed.Load() }

func (r *Replica) inquireAll() {
	var wg sync.WaitGroup
	for _, s := range r.Servers() {
		if s.ID != r.cfg.ID {
			wg.Go(func() { _, _ = r.inquire(s) }) // who can't be reached is asked again
		}
	}
	wg.Wait()
}

// inquire returns what a server says of itself.
func (r *Replica) inquire(s Server) (reply, error) {
	if r.cfg.Address != nil {
		if addr, ok := r.cfg.Address(s.ID); ok {
			s.Addr = addr
		}
	}
	return r.stream.inquire(s.Addr, s.ID, transportTimeout)
}
