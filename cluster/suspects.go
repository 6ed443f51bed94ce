package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"meibo/cluster/membership"
	"meibo/cluster/retry"
)

const (
	// refusedFor is for how long a host must refuse connections after its stream
	// broke to count as dead: longer than a daemon takes to start again.
	refusedFor = 2 * time.Second
	// refusedLook is between two tries in that time.
	refusedLook = 200 * time.Millisecond
	// maxSuspects bounds how many are looked into at once; of more, gossip finds
	// out alone.
	maxSuspects = 64
)

// suspects looks into hosts whose stream to this server broke. A machine that
// runs while its daemon doesn't says so at once by refusing connections, which
// in a large cluster gossip takes much longer to find.
type suspects struct {
	net *network

	mu  sync.Mutex // guards following
	now map[string]bool
	wg  sync.WaitGroup
	ctx context.Context // of the network's run; nil before and after it
}

// investigate begins to look into a host.
func (s *suspects) investigate(nodeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.now[nodeID] || len(s.now) >= maxSuspects {
		return
	}
	if m := s.net.gossip.Members().ByID(nodeID); m != nil && m.Status == membership.Alive {
		s.now[nodeID] = true
		ctx := s.ctx
		s.wg.Go(func() { s.judge(ctx, m) })
	}
}

// judge tells gossip of a member that refuses connections all the while.
func (s *suspects) judge(ctx context.Context, m *Member) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.now, m.ID)
	}()
	for begin := time.Now(); time.Since(begin) < refusedFor; {
		if !s.isRefused(ctx, linkAddr(m)) || !retry.Wait(ctx, refusedLook) {
			return
		}
	}
	s.net.logger.Info("a host whose stream broke refuses connections", "node", m.Name, "dur", refusedFor)
	s.net.gossip.LinkRefused(m.ID)
}

// isRefused reports whether nobody listens at the address of a machine that
// runs.
func (s *suspects) isRefused(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, refusedLook)
	defer cancel()
	dial := new(net.Dialer).DialContext
	if n := s.net.node.cfg.Network; n != nil {
		dial = n.DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// run has suspects looked into until ctx ends, and waits for those under way.
func (s *suspects) run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil // nobody is looked into from now on
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
