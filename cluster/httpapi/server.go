package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meibo/cluster/httpserve"
)

// Limits of a [Server] that hold when [ServerConfig] leaves them zero.
const (
	DefaultConnsPerClient = 200      // Consul's http_max_conns_per_client
	DefaultConns          = 10_000   // all clients together
	DefaultHeaderBytes    = 16 << 10 // of a request's header
	headerSlop            = 4096     // what net/http reads beyond MaxHeaderBytes

	headerTimeout = 10 * time.Second // from the first byte to the end of the header: slow ones are cut
	bodyTimeout   = time.Minute      // to the end of the body
	writeTimeout  = time.Minute      // from the first byte of an answer to its last
	idleTimeout   = 2 * time.Minute  // between two requests
	drainTimeout  = 3 * time.Second  // for answers under way when the server stops
)

// ServerConfig says where an [API] is served.
type ServerConfig struct {
	Handler *API // required
	// Addrs are "address:port" to listen on, or "unix:///path" for a socket file. Port 0
	// takes a free one.
	Addrs      []string
	SocketMode fs.FileMode // of socket files; 0: what the umask gives
	// SocketUser and SocketGroup own socket files, by name or number; "": who we are.
	SocketUser, SocketGroup string
	// Control makes this the control socket: Addrs are socket files, mode 0600, and only
	// root and this process's user are let in.
	Control        bool
	ConnsPerClient int // connections of one address at once; 0: DefaultConnsPerClient; -1: no limit
	HeaderBytes    int // 0: DefaultHeaderBytes
	Logger         *slog.Logger
}

// Server is the API on its listeners.
type Server struct {
	cfg       ServerConfig
	log       *slog.Logger
	listeners []net.Listener
}

// NewServer binds every address, or none: an error says which one could not be had.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New("httpapi: a server needs a Handler")
	}
	if cfg.ConnsPerClient == 0 {
		cfg.ConnsPerClient = DefaultConnsPerClient
	}
	if cfg.HeaderBytes <= 0 {
		cfg.HeaderBytes = DefaultHeaderBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Control {
		cfg.SocketMode = 0o600
	}
	s := &Server{cfg: cfg, log: cfg.Logger}
	for _, addr := range cfg.Addrs {
		ln, err := listen(network(addr, cfg.Addrs), addr, cfg)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for http on %s: %w", addr, err), s.Close())
		}
		s.listeners = append(s.listeners, ln)
	}
	return s, nil
}

// network lets 0.0.0.0 and [::] with one port stand beside each other: alone, either
// takes both families.
func network(addr string, all []string) string {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().IsUnspecified() || a.Port() == 0 {
		return "tcp"
	}
	v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port()).String()
	v6 := netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port()).String()
	switch {
	case !slices.Contains(all, v4) || !slices.Contains(all, v6):
		return "tcp"
	case a.Addr().Is4():
		return "tcp4"
	}
	return "tcp6"
}

func listen(network, addr string, cfg ServerConfig) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix://")
	if !isUnix {
		return net.Listen(network, addr)
	}
	if err := removeDeadSocket(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := giveSocket(path, cfg); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// giveSocket sets who owns a socket file and who may use it; the owner first, as
// a change of owner may clear permissions.
func giveSocket(path string, cfg ServerConfig) error {
	uid, err := numberOf(cfg.SocketUser, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return fmt.Errorf("owner of the socket: %w", err)
	}
	gid, err := numberOf(cfg.SocketGroup, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return fmt.Errorf("group of the socket: %w", err)
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	if cfg.SocketMode == 0 {
		return nil
	}
	return os.Chmod(path, cfg.SocketMode)
}

// numberOf returns the number of a user or group by name or number, -1 for "".
func numberOf(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	id, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// removeDeadSocket takes away the socket file of a process that was killed. One that
// somebody still answers on is left, and listening fails with the reason.
func removeDeadSocket(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil // absent, or no socket: net.Listen says what is wrong with it
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another process", path), conn.Close())
	}
	return os.Remove(path)
}

// Addrs are the addresses bound.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, ln := range s.listeners {
		addrs[i] = ln.Addr()
	}
	return addrs
}

// Close releases the listeners of a server that is not run.
func (s *Server) Close() error {
	var errs []error
	for _, ln := range s.listeners {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends or a listener fails, and returns when every connection is
// closed. Blocking queries under way are answered with what is at hand.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.Control {
		ctx = asControl(ctx)
	}
	m := s.cfg.Handler.metrics
	gate := &gate{perClient: s.cfg.ConnsPerClient, metrics: m, open: make(map[netip.Addr]int)}
	srv := &http.Server{
		Handler:           s.cfg.Handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       0, // would cut blocking queries short; bodies have bodyTimeout
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    max(1, s.cfg.HeaderBytes-headerSlop), // which net/http adds
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var listeners []net.Listener
	for _, ln := range s.listeners {
		if s.cfg.Control {
			ln = &controlListener{ln, func(uid int) {
				s.log.Warn("refused at the control socket: it is for root and for this daemon's user", "uid", uid)
			}}
		}
		listeners = append(listeners, &gatedListener{ln, gate})
	}
	err := httpserve.Run(ctx, srv, drainTimeout, listeners...)
	if err == nil {
		return nil
	}
	return fmt.Errorf("serve http: %w", err)
}

// gate bounds connections, of one client and of all.
type gate struct {
	perClient int
	metrics   *metrics

	mu    sync.Mutex // guards following
	open  map[netip.Addr]int
	total int
}

func (g *gate) enter(client netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= DefaultConns || (g.perClient > 0 && client.IsValid() && g.open[client] >= g.perClient) {
		return false
	}
	g.total++
	g.open[client]++
	g.metrics.conns.Inc()
	return true
}

func (g *gate) leave(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.open[client]--; g.open[client] <= 0 {
		delete(g.open, client)
	}
	g.metrics.conns.Dec()
}

type gatedListener struct {
	net.Listener
	gate *gate
}

// tooManyConns is what a client with too many connections reads before it is cut.
const tooManyConns = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"X-Content-Type-Options: nosniff\r\n\r\nYour IP is issuing too many concurrent connections, please rate limit your calls (limits.http_max_conns_per_client)\n"

// Accept implements net.Listener.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := clientOf(conn)
		if l.gate.enter(client) {
			return &gatedConn{Conn: conn, leave: sync.OnceFunc(func() { l.gate.leave(client) })}, nil
		}
		l.gate.metrics.connsCut.Inc()
		// The text fits any socket buffer, so this doesn't hold up the others.
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = conn.Write([]byte(tooManyConns))
		_ = conn.Close()
	}
}

// clientOf is the address that the bound per client counts; invalid for socket files.
func clientOf(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

type gatedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
