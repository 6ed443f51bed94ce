package consensus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is the stream layer that Raft sees: connections with a preface, to
// servers rather than to addresses. It knows all of them, to close them in
// the end; Raft leaves some open.
type stream struct {
	r       *Replica
	to      StreamLayer
	refused seldom
	spares  spares

	mu     sync.Mutex // guards following
	conns  map[net.Conn]struct{}
	closed chan struct{}  // closed by Close
	open   sync.WaitGroup // dials and accepted connections
}

func newStream(r *Replica) *stream {
	return &stream{r: r, to: r.cfg.Stream, conns: make(map[net.Conn]struct{}), closed: make(chan struct{})}
}

// Addr implements net.Listener. Raft tells it to the others, so it is the
// address where they reach this server, not the one it listens on.
func (s *stream) Addr() net.Addr { return address(s.r.cfg.Addr) }

// address is an address that need not be one.
type address string

func (address) Network() string  { return "raft" }
func (a address) String() string { return string(a) }

// Close implements net.Listener; it closes the connections too.
func (s *stream) Close() error {
	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		return nil
	default:
	}
	close(s.closed)
	for c := range s.conns {
		_ = c.Close() // whoever uses it is told
	}
	s.mu.Unlock()
	return s.to.Close()
}

// wait waits until nobody dials and all who were dialled have let go of
// their connections. Raft doesn't wait for all of its goroutines that do.
func (s *stream) wait() { s.open.Wait() }

// enter has wait wait for one more, unless s is closed.
func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
		s.open.Add(1)
		return true
	}
}

// track remembers a connection until forget, unless s is closed.
func (s *stream) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *stream) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Accept implements net.Listener. The preface comes with the first Read, in
// the goroutine that reads: one slow peer must not hold up the others.
func (s *stream) Accept() (net.Conn, error) {
	for {
		c, err := s.to.Accept()
		if err != nil {
			return nil, err
		}
		if s.track(c) && s.enter() {
			return &accepted{Conn: c, s: s}, nil
		}
		_ = c.Close()
	}
}

// accepted is a connection that another server made.
type accepted struct {
	net.Conn
	s       *stream
	preface sync.Once
	err     error
	close   sync.Once
}

func (c *accepted) Read(b []byte) (int, error) {
	c.preface.Do(func() { c.err = c.s.receive(c.Conn) })
	if c.err != nil {
		return 0, io.EOF // Raft would log any other error a second time
	}
	return c.Conn.Read(b)
}

// Close is called by who reads when it ends.
func (c *accepted) Close() error {
	err := c.Conn.Close()
	c.close.Do(func() {
		c.s.forget(c.Conn)
		c.s.open.Done()
	})
	return err
}

// dialled is a connection that this server made.
type dialled struct {
	net.Conn
	s *stream
}

func (c *dialled) Close() error {
	c.s.forget(c.Conn)
	return c.Conn.Close()
}

// target is how Raft is told of a server's address, for Dial to know which
// server it wants.
func target(addr, id string) string { return addr + "\n" + id }

// Dial implements raft.StreamLayer for addresses made by target.
func (s *stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if _, id, ok := strings.Cut(string(addr), "\n"); ok {
		if c := s.spares.get(id, string(addr)); c != nil {
			return c, nil
		}
	}
	return s.dialTarget(string(addr), timeout)
}

// dialTarget makes a connection to the server at an address made by target.
func (s *stream) dialTarget(addr string, timeout time.Duration) (net.Conn, error) {
	at, id, ok := strings.Cut(addr, "\n")
	if !ok {
		return nil, fmt.Errorf("no server is known at %s", addr)
	}
	c, _, err := s.call(at, id, timeout, false)
	if isBroken(err) { // in its preface: a key left the ring meanwhile, or the server begins anew
		c, _, err = s.call(at, id, timeout, false)
	}
	if err != nil {
		return nil, &dialError{err}
	}
	return c, nil
}

// inquire dials a server for its answer alone.
func (s *stream) inquire(addr, id string, timeout time.Duration) (reply, error) {
	_, a, err := s.call(addr, id, timeout, true)
	return a, err
}

func (s *stream) call(addr, id string, timeout time.Duration, ask bool) (net.Conn, reply, error) {
	if !s.awaitOpen() {
		return nil, reply{}, errNotRunning
	}
	if !s.enter() {
		return nil, reply{}, net.ErrClosed
	}
	defer s.open.Done()
	c, err := s.to.Dial(addr, timeout)
	if err != nil {
		return nil, reply{}, err
	}
	if !s.track(c) {
		_ = c.Close()
		return nil, reply{}, net.ErrClosed
	}
	_ = c.SetDeadline(time.Now().Add(timeout))
	a, err := s.introduce(c, id, ask)
	_ = c.SetDeadline(time.Time{})
	if err == nil && !ask {
		return &dialled{Conn: c, s: s}, a, nil
	}
	s.forget(c)
	_ = c.Close()
	var no *refusedError
	if errors.As(err, &no) && s.refused.now(id+string(no.Code)) {
		s.r.logger.Warn("raft does not speak to a server", "peer", id, "addr", addr, "err", no)
	}
	return nil, a, err
}

// awaitOpen waits until it is known what this server has in its files; it
// reports false if s was closed before.
func (s *stream) awaitOpen() bool {
	select {
	case <-s.r.opened:
		return true
	case <-s.closed:
		return false
	}
}

// introduce is the preface of who dials.
func (s *stream) introduce(c net.Conn, id string, ask bool) (a reply, err error) {
	own := hello{Cluster: s.r.identity.cluster(), From: s.r.cfg.ID, To: id, Ask: ask}
	if err := writeFrame(c, own); err != nil {
		return a, err
	}
	if err := readFrame(c, &a); err != nil {
		return a, fmt.Errorf("preface of server %s: %w", id, err)
	}
	s.r.hear(a)
	if err := a.err(); err != nil || ask {
		return a, err
	}
	no := s.r.judge(own, a)
	if err := writeFrame(c, no); err != nil {
		return a, err
	}
	return a, no.err()
}

// receive is the preface of who accepts.
func (s *stream) receive(c net.Conn) error {
	if !s.awaitOpen() {
		return net.ErrClosed
	}
	_ = c.SetDeadline(time.Now().Add(transportTimeout))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	var h hello
	if err := readFrame(c, &h); err != nil {
		if s.refused.now(c.RemoteAddr().Network()) {
			s.r.logger.Warn("raft connection without a preface", "addr", c.RemoteAddr(), "err", err)
		}
		return err
	}
	err := s.respond(c, h)
	var no *refusedError
	if errors.As(err, &no) && s.refused.now(h.From+string(no.Code)) {
		s.r.logger.Warn("raft does not speak to a server", "peer", h.From, "addr", c.RemoteAddr(), "err", no)
	}
	return err
}

// errAsked ends a connection that was made to ask.
var errAsked = errors.New("asked and answered")

func (s *stream) respond(c net.Conn, h hello) error {
	a := s.r.introduction(h)
	if err := writeFrame(c, a); err != nil {
		return err
	}
	if err := a.err(); err != nil {
		return err
	}
	if h.Ask {
		return errAsked
	}
	var no refused
	if err := readFrame(c, &no); err != nil {
		return err
	}
	if no.Code == retiredID {
		s.r.guard.report(s.r.retire(fmt.Errorf("server %s says: %w", h.From, no.err())))
	}
	if err := no.err(); err != nil {
		return err
	}
	err := s.r.identity.adopt(h.Cluster)
	if err != nil && !errors.Is(err, errOtherCluster) {
		s.r.guard.report(err)
	}
	return err
}

// seldom lets a thing be said once in a while.
type seldom struct {
	mu   sync.Mutex // guards said
	said map[string]time.Time
}

// Bounds of seldom: how often one thing is said, and how many are remembered.
const (
	sayEvery = time.Minute
	sayMost  = 256
)

func (s *seldom) now(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at, ok := s.said[what]; ok && now.Sub(at) < sayEvery {
		return false
	}
	if s.said == nil || len(s.said) >= sayMost {
		s.said = make(map[string]time.Time)
	}
	s.said[what] = now
	return true
}
