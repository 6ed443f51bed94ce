package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
	"meibo/cluster/retry"
)

// MaxNames is how many names one host may subscribe to.
const MaxNames = 5000

// A client that finds no server tries again after a pause that doubles from the
// first to the last of these, each shortened at random by up to a half: 5,000
// hosts that lose their servers at once don't come back at once. So that neither
// do those whose one server is lost, a first try is put off at random too, by up
// to spreadPerHost for each host there is: 1 s where there are 5,000.
const (
	firstPause    = 50 * time.Millisecond
	lastPause     = 2 * time.Second
	spreadPerHost = 200 * time.Microsecond
)

// avoided is for how long a server that failed comes after the others.
const avoided = 10 * time.Second

// ClientConfig is what a Client is made from. Resume and Logger may be left out.
type ClientConfig struct {
	// Dial connects to the feed of the server with the link address.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Servers returns the link addresses of the servers that are alive.
	Servers func() []string
	// NodeID and Datacenter are this host's.
	NodeID, Datacenter string
	Resume             Resume
	// Hosts returns about how many hosts the servers have: those that lose one
	// server together spread over a time that grows with it. nil: few.
	Hosts  func() int
	Logger *slog.Logger
}

// Client finds a server for this host.
type Client struct {
	cfg    ClientConfig
	logger *slog.Logger

	mu       sync.Mutex           // guards following
	stream   *Stream              // the open one; nil when there is none
	since    time.Time            // when it was opened
	heard    bool                 // a server has told something, ever
	tries    int                  // since it last did
	backoff  retry.Backoff        // between them
	failed   map[string]time.Time // when a server last failed
	prepared *candidate           // where to move to
	awaited  uint64               // the highest index to hear of
}

// NewClient returns a client that has no stream yet. It starts nothing.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Resume == nil {
		cfg.Resume = func() (catalog.History, uint64, bool, []string) { return catalog.History{}, 0, false, nil }
	}
	if cfg.Hosts == nil {
		cfg.Hosts = func() int { return 1 }
	}
	return &Client{
		cfg: cfg, logger: cfg.Logger, failed: make(map[string]time.Time),
		backoff: retry.Backoff{Min: firstPause, Max: lastPause},
	}
}

// Server returns the link address of the server that the open stream comes from
// and since when; "" when there is none.
func (c *Client) Server() (addr string, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil {
		return "", time.Time{}
	}
	return c.stream.addr, c.since
}

// Await asks the server of the open stream, or of the next one, to tell of an
// index as soon as it is reached, though nothing that this host follows may have
// changed: otherwise it hears of it with the next heartbeat. It does not block.
func (c *Client) Await(index uint64) {
	c.mu.Lock()
	c.awaited = max(index, c.awaited)
	s := c.stream
	c.mu.Unlock()
	if s != nil {
		s.await(index)
	}
}

// Open connects to the best server and returns the stream from it: the first,
// in an order of this host's own, that hears from a leader, else one that
// answers. It goes on trying until ctx ends, whose cause it then returns with
// the last failure. Close a stream before the next Open.
func (c *Client) Open(ctx context.Context) (*Stream, error) {
	for {
		if !retry.Wait(ctx, c.pause()) {
			return nil, context.Cause(ctx)
		}
		s, err := c.open(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, errors.Join(context.Cause(ctx), err)
		}
		c.logger.Debug("no feed from any server", "err", err)
	}
}

// pause is how long to wait before the next try.
func (c *Client) pause() time.Duration {
	spread := c.spread()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tries++; c.tries > 1 {
		return c.backoff.Next()
	}
	if !c.heard || c.prepared != nil {
		return 0
	}
	return rand.N(spread)
}

// spread is over how long hosts spread what all of them do at one moment.
func (c *Client) spread() time.Duration {
	return time.Duration(max(c.cfg.Hosts(), 1)) * spreadPerHost
}

// recordUpdate notes that a server told something: the next try is a first one.
func (c *Client) recordUpdate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.tries = true, 0
	c.backoff.Reset()
}

// open tries each server once.
func (c *Client) open(ctx context.Context) (*Stream, error) {
	to := c.popPrepared()
	if to == nil {
		var err error
		if to, err = c.find(ctx); err != nil {
			return nil, err
		}
	}
	s, err := c.start(ctx, to)
	if err != nil {
		to.conn.Close()
		c.avoid(to.addr)
		return nil, fmt.Errorf("feed from %s: %w", to.addr, err)
	}
	return s, nil
}

// candidate is a server that said hello.
type candidate struct {
	addr   string
	conn   net.Conn
	leader bool
	every  time.Duration // see hello
	expiry *time.Timer   // of one that is prepared
}

// find says hello to one server after the other until one has a leader. One
// without is better than none.
func (c *Client) find(ctx context.Context) (*candidate, error) {
	servers := c.order(c.cfg.Servers(), true)
	if len(servers) == 0 {
		return nil, errors.New("feed: no server is known to be alive")
	}
	var second *candidate
	var errs []error
	for _, addr := range servers {
		to, err := c.greet(ctx, addr)
		switch {
		case err != nil:
			c.avoid(addr)
			errs = append(errs, err)
		case to.leader:
			if second != nil {
				second.conn.Close()
			}
			return to, nil
		case second != nil:
			to.conn.Close()
		default:
			second = to
		}
	}
	if second != nil {
		return second, nil
	}
	return nil, errors.Join(errs...)
}

// greet dials a server and exchanges hellos.
func (c *Client) greet(ctx context.Context, addr string) (*candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := c.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("feed from %s: %w", addr, err)
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	h, err := c.hello(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("feed from %s: %w", addr, err)
	}
	return &candidate{addr: addr, conn: conn, leader: h.Leader, every: h.Every}, nil
}

func (c *Client) hello(conn net.Conn) (hello, error) {
	conn.SetDeadline(time.Now().Add(silence))
	h := hello{Version: Version, NodeID: c.cfg.NodeID, Datacenter: c.cfg.Datacenter}
	if _, err := conn.Write(h.frame()); err != nil {
		return h, fmt.Errorf("write hello: %w", err)
	}
	kind, payload, _, err := frame.Read(conn, nil, maxFirstFrame)
	switch {
	case err != nil:
		return h, fmt.Errorf("read hello: %w", err)
	case kind == frame.Refuse:
		return h, refusal(payload)
	case kind != frame.Hello:
		return h, fmt.Errorf("the first frame is of kind %d: want a hello", kind)
	}
	return decodeHello(payload)
}

// refusal is a server's no, as an error.
func refusal(payload []byte) error {
	return fmt.Errorf("refused: %s", frame.NewFields(payload).String())
}

// start begins the stream from a server.
func (c *Client) start(ctx context.Context, to *candidate) (*Stream, error) {
	g := begin{}
	g.History, g.Index, g.Whole, g.Names = c.cfg.Resume()
	if len(g.Names) > MaxNames {
		c.logger.Warn("more names are in use than one host may subscribe to: the rest is asked from disk",
			"names", len(g.Names), "limit", MaxNames)
		g.Names, g.Anew = g.Names[:MaxNames], true
	}
	s := newStream(c, to)
	s.index = g.Index
	s.updates.Continue(g.History)
	for _, name := range g.Names {
		s.names[strings.ToLower(name)] = struct{}{}
	}
	defer context.AfterFunc(ctx, func() { to.conn.SetDeadline(time.Unix(1, 0)) })()
	to.conn.SetDeadline(time.Now().Add(patience))
	if _, err := to.conn.Write(g.frame()); err != nil {
		return nil, fmt.Errorf("write begin: %w", err)
	}
	to.conn.SetDeadline(time.Time{})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	c.stream, c.since = s, time.Now()
	if c.awaited > g.Index {
		s.await(c.awaited)
	}
	c.mu.Unlock()
	s.wg.Go(s.talk)
	return s, nil
}

// ended notes that a stream is over.
func (c *Client) ended(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == s {
		c.stream = nil
	}
}

// prepare keeps a server for the next Open, which comes at once or not at all.
func (c *Client) prepare(to *candidate) {
	to.expiry = time.AfterFunc(silence, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.prepared == to {
			c.prepared = nil
			to.conn.Close()
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prepared != nil {
		c.prepared.conn.Close()
	}
	c.prepared, c.tries = to, 0
}

func (c *Client) popPrepared() *candidate {
	c.mu.Lock()
	defer c.mu.Unlock()
	to := c.prepared
	c.prepared = nil
	if to != nil {
		to.expiry.Stop()
	}
	return to
}
