package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"meibo/cluster/consensus"
	"meibo/cluster/feed"
	"meibo/cluster/gossip"
	"meibo/cluster/link"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
	"meibo/cluster/rpc"
	"meibo/cluster/view"
)

// The passengers of link besides the feed, which names its own.
const (
	raftProtocol link.Protocol = "meibo-raft/1"
	feedProtocol               = link.Protocol(feed.Protocol)
)

// network is one life of what this host speaks to others with: gossip, which
// says who is there, and link, which carries the rest. When one of them fails
// both end and another network is made.
type network struct {
	node   *Node
	logger *slog.Logger
	link   *link.Link
	gossip *gossip.Gossip
	feed   *feed.Client
	rpc    *rpc.Endpoint
	// suspects are hosts whose streams broke.
	suspects *suspects
	// raft and feeds are the connections of others to the server of this host,
	// nil without one; neighbours ask every host.
	raft, feeds, neighbours net.Listener
}

// newNetwork binds the ports; it starts nothing.
func (n *Node) newNetwork() (*network, error) {
	bind := n.cfg.Gossip.Bind
	listen := netip.AddrPortFrom(bind.Addr(), uint16(n.cfg.ServerPort))
	l, err := link.New(link.Config{
		Listen: listen, Network: n.cfg.Network, Keys: n.linkKeys(), KeysKept: n.keyring.Path(), Logger: n.logger,
		Self: n.peer(), Reserved: n.isServerAddr, HandshakeTimeout: n.cfg.HandshakeTimeout, ConnsPerMember: n.cfg.ConnsPerMember,
	})
	if err != nil {
		return nil, n.heldBy(err, listen)
	}
	w := &network{node: n, logger: n.logger, link: l, neighbours: l.Listener(view.Protocol)}
	w.suspects = &suspects{net: w, now: make(map[string]bool)}
	if n.cfg.Server {
		w.raft, w.feeds = l.Listener(raftProtocol), l.Listener(feedProtocol)
	}
	if w.gossip, err = gossip.New(n.gossipConfig()); err != nil {
		return nil, errors.Join(n.heldBy(err, bind), l.Close())
	}
	w.feed = feed.NewClient(feed.ClientConfig{
		Dial:    dialFeed(l),
		Servers: w.servers, NodeID: n.cfg.NodeID, Datacenter: n.cfg.Datacenter,
		Resume: n.view.Resume, Hosts: func() int { return len(n.Members()) }, Logger: n.logger,
	})
	w.rpc = rpc.New(rpc.Config{
		Transport: l.Transport(), Router: w, Self: n.peer(), Hold: n.cfg.HoldTime, Logger: n.logger,
		Scope: n.cfg.Scope, WithScope: n.cfg.WithScope, IsServer: w.isServer,
		Addr: func() string { return linkAddr(w.gossip.Members().Self()) },
	})
	return w, nil
}

// heldBy adds to an error of binding which process is in the way.
func (n *Node) heldBy(err error, at netip.AddrPort) error {
	if n.cfg.InUse == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	for _, proto := range []string{"tcp", "udp"} {
		if who := n.cfg.InUse(proto, at); who != "" {
			return fmt.Errorf("%w; it is held by %s", err, who)
		}
	}
	return err
}

// NetworkError says why this host speaks to no other at present though it is to;
// nil if it does, or is not to.
func (n *Node) NetworkError() error { return n.net.Load().err }

// isServerAddr reports whether the servers' configuration has one at the address.
func (n *Node) isServerAddr(addr netip.Addr) bool {
	s, _, _ := n.running()
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.Replica().Servers(), func(one consensus.Server) bool {
		at, err := netip.ParseAddrPort(one.Addr)
		return err == nil && at.Addr().Unmap() == addr
	})
}

// peer is who this host is to the others.
func (n *Node) peer() link.Peer {
	return link.Peer{ID: n.cfg.NodeID, Name: n.cfg.NodeName, Datacenter: n.cfg.Datacenter}
}

// isServer reports whether gossip knows the peer as a server.
func (w *network) isServer(p link.Peer) bool {
	if p.ID == w.node.cfg.NodeID {
		return w.node.cfg.Server
	}
	m := w.gossip.Members().ByID(p.ID)
	return m != nil && m.Name == p.Name && isServer(m)
}

// dialFeed connects to the feed of the server at an address.
func dialFeed(l *link.Link) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := l.Dial(ctx, addr, feedProtocol, "")
		if err != nil {
			return nil, err // not a nil *tls.Conn in an interface
		}
		return conn, nil
	}
}

// linkKeys are the keys of gossip; nil where the configuration says that there
// shall be none.
func (n *Node) linkKeys() link.Keys {
	if keys, _ := n.keyring.Keys(); len(keys) == 0 {
		return nil
	}
	return n.keyring
}

// run returns when ctx has ended (nil) or when a part has failed, and all that
// it started has ended.
func (w *network) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	part := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			err := run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errors.New("it ended without being told to")
			}
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	// Gossip ends by itself and first of all: what it tells last, the others
	// should be able to look into.
	part("gossip", w.gossip.Run)
	part("link", w.link.Run)
	part("api between hosts", func(ctx context.Context) error { return w.link.Serve(ctx, w.handler()) })
	part("neighbours", func(ctx context.Context) error {
		return view.ServeNeighbours(ctx, w.neighbours, w.node.view, w.logger)
	})
	if w.raft != nil {
		part("raft connections", func(ctx context.Context) error { return w.accept(ctx, w.raft, w.node.offerRaft) })
		part("feed connections", func(ctx context.Context) error { return w.serveFeeds(ctx) })
	}
	part("members", w.watchMembers)
	part("suspects", w.suspects.run)
	wg.Wait()
	return endOf(ctx)
}

// endOf is why a context that a failure cancels has ended; nil if it was told to.
func endOf(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// accept hands each connection on until ctx ends or the listener is closed.
func (w *network) accept(ctx context.Context, l net.Listener, take func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		take(conn)
	}
}

// offerRaft hands Raft's connection of another server to the one of this host.
func (n *Node) offerRaft(conn net.Conn) {
	if s, _, _ := n.running(); s != nil {
		s.Offer(conn)
		return
	}
	conn.Close()
}

// serveFeeds tells other hosts of the catalog while the server of this host
// knows it; without one they are sent away at once and ask another.
func (w *network) serveFeeds(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	return w.accept(ctx, w.feeds, func(conn net.Conn) {
		peer, _ := link.PeerOf(conn)
		s, _, _ := w.node.running()
		if s == nil || !s.IsReady() {
			conn.Close()
			return
		}
		wg.Go(func() {
			if err := s.Feed().Serve(ctx, conn, peer.ID); err != nil && ctx.Err() == nil {
				w.logger.Debug("stream to a host ended", "node", peer.Name, "err", err)
			}
		})
	})
}

// handler is what other hosts may ask of this one.
func (w *network) handler() http.Handler {
	return w.rpc.Handler(w.node.catalogHandler(), w.internal())
}

// servers are the link addresses of all living servers but this host.
func (w *network) servers() []string {
	var addrs []string
	for _, m := range w.gossip.Members().Role(roleServer) {
		if m.ID != w.node.cfg.NodeID && m.Lives() && m.Datacenter == w.node.cfg.Datacenter {
			addrs = append(addrs, linkAddr(m))
		}
	}
	return addrs
}

// isServer reports whether the member is one, by its own word.
func isServer(m *Member) bool { return m.Tags[tagRole] == roleServer }

// linkAddr is where link reaches a member.
func linkAddr(m *Member) string {
	port := m.Tags[tagPort]
	if port == "" {
		port = strconv.Itoa(DefaultServerPort)
	}
	return net.JoinHostPort(m.Addr.String(), port)
}

// Self implements rpc.Router.
func (w *network) Self() (isServer, isLeader bool) {
	s, _, _ := w.node.running()
	if s == nil || !w.node.cfg.Server {
		return w.node.cfg.Server, false
	}
	return true, s.Leads()
}

// Leader implements rpc.Router: the leader's link address, which is its Raft
// address too; only servers know it.
func (w *network) Leader(string) (string, <-chan struct{}) {
	s, _, changed := w.node.running()
	if s == nil {
		return "", changed
	}
	l, changed := s.Leadership()
	if !l.Leading {
		return l.LeaderAddr, changed
	}
	return w.node.raftAddr(), changed
}

// Servers implements rpc.Router.
func (w *network) Servers(string) []string { return w.servers() }

// runNetwork keeps a network running until ctx ends, once this host is to have
// one: its configuration asks for it, or Join does.
func (n *Node) runNetwork(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-n.wanted:
	}
	for wait := newBackoff(); ; {
		began := time.Now()
		err := n.networkOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		d := wait.after(time.Since(began))
		n.logger.Log(ctx, wait.level(err), "this host cannot speak to others, will try again; lookups go on from what is known", "err", err, "dur", d)
		retry.Wait(ctx, d)
	}
}

func (n *Node) networkOnce(ctx context.Context) error {
	w, err := n.newNetwork()
	if err != nil {
		n.setNetworkError(err)
		return err
	}
	n.setNetwork(w)
	defer n.setNetwork(nil)
	n.mu.Lock()
	announced := n.announced
	n.mu.Unlock()
	if err := w.gossip.SetTags(announced); err != nil {
		return err
	}
	return w.run(ctx)
}

// networkState is by what this host speaks to others, at one moment. It is never
// changed.
type networkState struct {
	network *network          // nil: there is none
	err     error             // why
	last    *membership.Table // of the last one, or what the view's file says of lives
	changed chan struct{}     // closed when network has changed
}

// setNetwork makes w the present network; nil: there is none.
func (n *Node) setNetwork(w *network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.net.Load()
	n.net.Store(&networkState{network: w, last: old.table(), changed: make(chan struct{})})
	close(old.changed)
}

// setNetworkError keeps why there is none.
func (n *Node) setNetworkError(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := *n.net.Load()
	s.err = err
	n.net.Store(&s)
}

// network returns the present one, or nil, and a channel that is closed when
// that has changed.
func (n *Node) network() (*network, <-chan struct{}) {
	s := n.net.Load()
	return s.network, s.changed
}

// table is what gossip knows of the members; while this host speaks to nobody,
// what it knew last, or what the view's file says of lives.
func (s *networkState) table() *membership.Table {
	if s.network != nil {
		return s.network.gossip.Members()
	}
	return s.last
}
