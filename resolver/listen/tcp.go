package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// drainTimeout is how long queries of open connections may take to be answered when the listener stops. What is at hand
// comes in milliseconds; a restart must not wait for a silent upstream.
const drainTimeout = 500 * time.Millisecond

// tcpServer is all TCP connections, of every address.
type tcpServer struct {
	cfg     *Config
	stop    chan struct{} // closed by shutdown
	wg      sync.WaitGroup
	opened  counters
	refused atomic.Uint64

	mu       sync.Mutex // guards following
	conns    map[*tcpConn]struct{}
	bySource map[netip.Addr]int
}

func newTCPServer(cfg *Config) *tcpServer {
	return &tcpServer{cfg: cfg, stop: make(chan struct{}), conns: make(map[*tcpConn]struct{}), bySource: make(map[netip.Addr]int)}
}

// accept takes connections until ctx ends.
func (s *tcpServer) accept(ctx context.Context, l *net.TCPListener) error {
	var fail failures
	for {
		nc, err := l.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case err != nil && isShortage(err):
			s.closeOldestIdle(netip.Addr{})
			fallthrough
		case err != nil:
			if !fail.again(ctx, err) {
				if ctx.Err() != nil {
					return nil
				}
				return &lostError{network: "tcp", addr: l.Addr(), err: err}
			}
		default:
			fail.none()
			s.admit(nc)
		}
	}
}

// admit starts a connection, or closes it when there is no room.
func (s *tcpServer) admit(nc *net.TCPConn) {
	c := newTCPConn(s, nc)
	source := c.client.Addr()
	most := s.cfg.MaxConnsPerSource
	if source.IsLoopback() {
		most = s.cfg.MaxConnsPerLoopback
	}
	s.mu.Lock()
	ok := s.makeRoomLocked(source, most)
	if ok {
		s.conns[c] = struct{}{}
		s.bySource[source]++
	}
	s.mu.Unlock()
	if !ok {
		s.refused.Add(1)
		nc.Close()
		return
	}
	s.wg.Go(c.serve)
}

// makeRoomLocked closes an idle connection where there are as many as there may be, and reports whether there is room then.
func (s *tcpServer) makeRoomLocked(source netip.Addr, most int) bool {
	if s.bySource[source] >= most && !s.closeOldestIdleLocked(source) {
		return false
	}
	return len(s.conns) < s.cfg.MaxConns || s.closeOldestIdleLocked(netip.Addr{})
}

func (s *tcpServer) closeOldestIdle(source netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeOldestIdleLocked(source)
}

// closeOldestIdleLocked closes the connection that has been idle for longest, of one source or of all.
func (s *tcpServer) closeOldestIdleLocked(source netip.Addr) bool {
	var oldest *tcpConn
	for c := range s.conns {
		if source.IsValid() && c.client.Addr() != source || c.busy.Load() || len(c.slots) > 0 {
			continue
		}
		if oldest == nil || c.active.Load() < oldest.active.Load() {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	s.removeLocked(oldest)
	oldest.nc.Close()
	return true
}

func (s *tcpServer) remove(c *tcpConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(c)
}

func (s *tcpServer) removeLocked(c *tcpConn) {
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	source := c.client.Addr()
	if s.bySource[source]--; s.bySource[source] == 0 {
		delete(s.bySource, source)
	}
}

// open returns how many connections there are.
func (s *tcpServer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// shutdown ends every connection once its queries are answered or drainTimeout is over. Nothing is accepted any more.
func (s *tcpServer) shutdown() {
	close(s.stop)
	s.mu.Lock()
	for c := range s.conns {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *tcpServer) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// isShortage reports whether closing a connection may help.
func isShortage(err error) bool {
	for _, e := range shortages {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
