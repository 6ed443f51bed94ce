package consensus

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Raft connects with a server when it has something to ask it, and but for the leader
// nobody has anything to ask of the others: when the leader dies, votes would wait for
// handshakes, of which the servers get many at this very time, from hosts that lost
// their streams. So each server holds a connection to each other one ready.

const (
	// spareLook is how often a server looks whether it has one to each.
	spareLook = 2 * time.Second
	// spareAgain is how long it waits after one could not be had.
	spareAgain = 10 * time.Second
)

// spares are connections that nobody uses yet, by server ID.
type spares struct {
	mu      sync.Mutex // guards ready
	ready   map[string]*spare
	readers sync.WaitGroup // one for each, until it ends or is taken
}

type spare struct {
	conn net.Conn
	addr string
	lost chan struct{} // closed when its end is noticed, or it is taken
	err  error         // why; set before lost is closed
}

// maintainSpares keeps them until ctx ends, which is after Raft has, and closes them then.
func (r *Replica) maintainSpares(ctx context.Context) {
	if r.stream == nil {
		return
	}
	addrs := &addresses{r: r, known: make(map[raft.ServerID]string)}
	failed := make(map[string]time.Time)
	tick := time.NewTicker(spareLook)
	defer tick.Stop()
	defer r.stream.spares.readers.Wait()
	defer r.stream.spares.keepOnly(nil)
	for {
		var wg sync.WaitGroup
		var mu sync.Mutex // guards failed
		servers := r.Servers()
		r.stream.spares.keepOnly(servers)
		maps.DeleteFunc(failed, func(id string, _ time.Time) bool { _, ok := find(servers, id); return !ok })
		for _, s := range servers {
			to, err := addrs.ServerAddr(raft.ServerID(s.ID))
			mu.Lock()
			late := time.Since(failed[s.ID]) >= spareAgain
			mu.Unlock()
			if s.ID == r.cfg.ID || err != nil || !late || r.stream.spares.has(s.ID, string(to)) {
				continue
			}
			wg.Go(func() {
				conn, err := r.stream.dialTarget(string(to), transportTimeout)
				if err != nil {
					mu.Lock()
					failed[s.ID] = time.Now()
					mu.Unlock()
					return
				}
				r.stream.spares.put(s.ID, string(to), conn)
			})
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// put keeps a connection ready until it is taken, or ends.
func (s *spares) put(id, addr string, conn net.Conn) {
	p := &spare{conn: conn, addr: addr, lost: make(chan struct{})}
	s.mu.Lock()
	if s.ready == nil {
		s.ready = make(map[string]*spare)
	}
	old := s.ready[id]
	s.ready[id] = p
	s.mu.Unlock()
	old.close()
	s.readers.Go(func() {
		defer close(p.lost)
		_, p.err = conn.Read(make([]byte, 1)) // nothing comes unasked
	})
}

func (p *spare) close() {
	if p != nil {
		_ = p.conn.Close()
	}
}

// has reports whether there is one to the server at the address.
func (s *spares) has(id, addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ready[id]
	if p == nil {
		return false
	}
	select {
	case <-p.lost:
		return false
	default:
		return p.addr == addr
	}
}

// keepOnly closes those to servers that are none any more.
func (s *spares) keepOnly(servers []Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.ready {
		if _, ok := find(servers, id); !ok {
			delete(s.ready, id)
			p.close()
		}
	}
}

// get returns the connection to the server at the address, for its taker to use; nil
// if none is ready.
func (s *spares) get(id, addr string) net.Conn {
	s.mu.Lock()
	p := s.ready[id]
	delete(s.ready, id)
	s.mu.Unlock()
	if p == nil || p.addr != addr {
		p.close()
		return nil
	}
	_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // ends the reading
	<-p.lost
	if !errors.Is(p.err, os.ErrDeadlineExceeded) || p.conn.SetReadDeadline(time.Time{}) != nil {
		p.close()
		return nil
	}
	return p.conn
}
