// Package server is one life of a host that holds the catalog: consensus, the state
// machine behind it, what tells other hosts of it, and a leader's loop. When one of
// them fails all end, and another server is made with a store that the log fills
// anew.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/bootstrap"
	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/consensus"
	"meibo/cluster/feed"
	"meibo/cluster/leader"
	"meibo/cluster/retry"
)

// hostsSpeak is how often a host says a word on its stream: link finds those that are
// gone, so this is for processes that hang.
const hostsSpeak = 10 * time.Second

// Config is what a Server is made from. Self, Addr, IDs, Known, OnReady and Logger are
// required.
type Config struct {
	// Self is this host as a leader sees it, at any time.
	Self func() leader.Member
	// Addr is where link reaches this host, which is its Raft address.
	Addr string
	// Dir is the folder of Raft's files; empty keeps everything in memory.
	Dir string
	// IDs outlive the server.
	IDs *IDs
	// Begins says that this server begins a history by itself if there is none,
	// Provisional that nobody has said that it should.
	Begins, Provisional bool
	// Expect is how many servers begin together, or are to be there at least; 0:
	// unknown.
	Expect int
	// Removed says that the other servers took this one out of their configuration,
	// when it ran last.
	Removed bool
	// Network is how this host speaks to others; nil: it is alone.
	Network Network
	// Known is the largest index that this host's view has shown.
	Known func() uint64
	// OnReady is called once the store holds the catalog.
	OnReady func(*Server)

	// Consensus tunes Raft; timeouts of zero follow the round trip between the
	// servers. What a Server knows itself is filled in.
	Consensus        consensus.Config
	Autopilot        leader.Autopilot // of a leader whose catalog doesn't say it yet
	ReconnectTimeout time.Duration    // as leader.Config's
	WholeBelow       int64            // as feed.ServerConfig's
	Logger           *slog.Logger
}

// Peer is another server, as gossip knows it.
type Peer struct {
	bootstrap.Member
	Datacenter string
	Alive      bool
	RTT        time.Duration // 0: not measured yet
}

// Network is how a server's host speaks to others. Its methods may be called while
// there is no network at present: they know nobody then, and return errors.
type Network interface {
	leader.Members
	// Peers are all servers but this one; the channel is closed when they change.
	Peers() ([]Peer, <-chan struct{})
	// Ping asks a member for a sign of life and returns the round trip.
	Ping(ctx context.Context, name string) (time.Duration, error)
	// Announce has gossip say by which ID this server goes in the configuration, and
	// which history it follows; "": none yet.
	Announce(raftID, history string) error
	// Dial connects to the Raft of the server at an address.
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// Call has the leader, or the host at addr, answer one of [Paths].
	Call(ctx context.Context, toLeader bool, addr, path string, in, out any) error
	// StreamChanged hears that the feed's stream of a host to this server began or
	// broke. It must not block.
	StreamChanged(nodeID string, up bool)
}

// Why a server ends that has not failed.
var (
	// ErrRestart: it is to begin anew at once.
	ErrRestart = errors.New("this server starts again")
	// ErrVoteGivenUp: it has left the configuration.
	ErrVoteGivenUp = errors.New("this server has given up its vote")
)

// Server is one life. Its methods may be called at any time, by several goroutines
// at once.
type Server struct {
	cfg      Config
	logger   *slog.Logger
	id       string // in the servers' configuration
	store    *state.Store
	replica  *consensus.Replica
	feed     *feed.Server
	boot     *bootstrap.Bootstrap // nil: this server never begins a cluster with others
	layer    *streamLayer         // nil without others
	lease    time.Duration
	begun    time.Time
	requests *catalog.RequestIDs // of what the leader loop writes
	ends     chan error          // see end
	// leader is the loop of the present time of leading; nil when there is none.
	leader atomic.Pointer[leader.Leader]
	// ready is closed when the store has caught up with the log and a history
	// has begun: what it says is the catalog.
	ready     chan struct{}
	readyOnce sync.Once
	// ending is closed when the server begins to end.
	ending chan struct{}
}

// New makes a server; it opens no file but those that hold IDs. With others, it may
// wait some seconds to learn how far they are.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.setProvisionalAside(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, logger: cfg.Logger, store: state.New(), begun: time.Now(), requests: catalog.NewRequestIDs(),
		ends: make(chan error, 1), ready: make(chan struct{}), ending: make(chan struct{}),
	}
	var err error
	if s.id, err = cfg.IDs.current(cfg.Dir); err != nil {
		return nil, err
	}
	raft := cfg.Consensus
	raft.StateMachine, raft.Dir, raft.Addr, raft.Logger, raft.ID = s.store, cfg.Dir, cfg.Addr, cfg.Logger, s.id
	raft.Bootstrap, raft.OnDamage, raft.Removed = cfg.Begins, consensus.BeginAnew, cfg.Removed
	if cfg.Network != nil {
		s.layer = newStreamLayer(cfg.Addr, cfg.Network.Dial)
		raft.Stream, raft.Address = s.layer, s.addressOf
		if !cfg.Begins {
			// Its vote is gone with its files: what it has acknowledged could
			// be voted away.
			raft.OnDamage = consensus.Refuse
		}
		s.setTimeouts(ctx, &raft)
	}
	s.lease = raft.Lease
	if raft.Recover, err = readPeersFile(cfg.Dir); err != nil {
		return nil, err
	}
	if s.replica, err = consensus.New(raft); err != nil {
		return nil, err
	}
	feeds := feed.ServerConfig{Store: s.store, Leader: s.LeaderContact, WholeBelow: cfg.WholeBelow, HostsSpeak: hostsSpeak, Logger: cfg.Logger}
	if cfg.Network != nil {
		feeds.Others, feeds.OnStream = s.peersWithCatalog, cfg.Network.StreamChanged
	}
	if s.feed, err = feed.NewServer(feeds); err == nil && cfg.Network != nil && !cfg.Begins {
		s.boot, err = s.newBootstrap()
	}
	return s, err
}

// Run returns when ctx has ended (nil) or when the server has failed, and all that it
// started has ended. [ErrRestart] and [ErrVoteGivenUp] are no failures, nor is
// consensus.ErrRemoved: others took this server out of the configuration.
func (s *Server) Run(ctx context.Context) error {
	defer s.store.Close() // watches on it would stay silent
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	part := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(inner); err != nil && inner.Err() == nil {
				s.logger.Error(what+" of this server ended", "err", err)
			}
		})
	}
	wg.Go(func() {
		select {
		case why := <-s.ends:
			end(why)
		case <-inner.Done():
		}
	})
	part("leader loop", s.leaderLoop)
	part("feed", s.feed.Run)
	part("start", s.awaitReady)
	if s.boot != nil {
		part("bootstrap", s.runBootstrap)
	}
	if s.cfg.Network != nil {
		part("timeouts", s.followRoundTrip)
		part("announcements", s.announce)
	}
	// Raft hands leadership over before it ends, so the rest lasts as long.
	err := s.replica.Run(ctx)
	switch cause := context.Cause(ctx); {
	case err == nil && ctx.Err() == nil:
		err = errors.New("consensus ended without being told to")
	case err == nil && (errors.Is(cause, ErrRestart) || errors.Is(cause, ErrVoteGivenUp)):
		err = cause
	}
	close(s.ending)
	cancel()
	wg.Wait()
	return err
}

// end has this server end, with ErrRestart or ErrVoteGivenUp.
func (s *Server) end(why error) {
	select {
	case s.ends <- why:
	default: // it ends already
	}
}

// Read is the present state of the catalog, as far as this server has it.
func (s *Server) Read() *state.Read { return s.store.Read() }

// Supersede wakes who waits for changes of this server's catalog: another has taken its
// place.
func (s *Server) Supersede() { s.store.Close() }

// Feed tells other hosts of the catalog.
func (s *Server) Feed() *feed.Server { return s.feed }

// Replica is consensus, for figures and tests.
func (s *Server) Replica() *consensus.Replica { return s.replica }

// ID is the server's in the configuration.
func (s *Server) ID() string { return s.id }

// Ending is closed when the server begins to end.
func (s *Server) Ending() <-chan struct{} { return s.ending }

// Ready is closed once the store holds the catalog.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// IsReady reports whether the store holds the catalog.
func (s *Server) IsReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// Leads reports whether this server leads and runs the leader loop.
func (s *Server) Leads() bool { return s.replica.IsLeader() && s.IsReady() }

// Leadership is who leads, as far as this server knows; the channel is closed when that
// changes.
func (s *Server) Leadership() (consensus.Leadership, <-chan struct{}) { return s.replica.Leadership() }

// LeaderContact says whether this server knows a leader, and how long ago it heard from
// it.
func (s *Server) LeaderContact() (known bool, last time.Duration) {
	last, ok := s.replica.LastContact()
	l, _ := s.replica.Leadership()
	return ok && l.LeaderID != "", last
}

// Verify makes sure that this server leads: catalog.ErrNoLeader if it doesn't.
func (s *Server) Verify(ctx context.Context) error {
	return inCatalogTerms(s.replica.Verify(ctx))
}

// setReady says that the store holds the catalog from now on. A recovery by
// peers.json is over then, and must not be made again at the next start.
func (s *Server) setReady() {
	s.readyOnce.Do(func() {
		if s.replica.Recovered() {
			if err := removePeersFile(s.cfg.Dir); err != nil {
				s.logger.Error("peers.json has been used and cannot be removed: remove it before this server starts again", "err", err)
			}
		}
		close(s.ready)
		s.cfg.OnReady(s)
	})
}

// catchUpLook is how often a follower that begins looks whether it has caught
// up.
const catchUpLook = 20 * time.Millisecond

// awaitReady makes a follower ready once it has applied all that was committed
// when it first heard of a leader. A leader says so itself.
func (s *Server) awaitReady(ctx context.Context) error {
	for target := uint64(0); !s.IsReady(); {
		if !retry.Wait(ctx, catchUpLook) {
			return nil
		}
		known, last := s.LeaderContact()
		if !known || last > time.Second || s.replica.IsLeader() {
			target = 0
			continue
		}
		if target == 0 {
			target = s.replica.Committed()
		}
		if _, h := s.store.Read().History(nil); target > 0 && s.replica.HasApplied(target) && h.ID != "" {
			s.setReady()
		}
	}
	return nil
}

// leaderLoop runs the leader loop whenever this server leads.
func (s *Server) leaderLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		lead, changed := s.replica.Leadership()
		if !lead.Leading {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		term, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.lead(term) }()
		select {
		case <-changed:
			cancel()
			<-done
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				s.logger.Error("leader loop failed, will start again", "err", err)
				retry.Wait(ctx, leadAgain)
			}
		}
		cancel()
	}
	return nil
}

// leadAgain is how soon a leader that could not begin tries again.
const leadAgain = time.Second

// lead is one time of leading: catch up, begin a history if need be, then
// reconcile until ctx ends.
func (s *Server) lead(ctx context.Context) error {
	if err := s.replica.Barrier(ctx); err != nil {
		return fmt.Errorf("catch up with the log: %w", err)
	}
	cfg := leader.Config{
		Catalog: leaderCatalog{s}, Members: leader.Alone(s.cfg.Self()),
		ReconnectTimeout: s.cfg.ReconnectTimeout, Autopilot: s.cfg.Autopilot, Logger: s.logger,
	}
	if s.cfg.Network != nil {
		cfg.Members, cfg.Servers = s.cfg.Network, raftServers{s}
		cfg.RaftID, cfg.ClusterID, cfg.Expect = s.id, s.replica.ClusterID(), s.cfg.Expect
	}
	l, err := leader.New(cfg)
	if err != nil {
		return err
	}
	if err := l.Begin(ctx, s.beginning()); err != nil {
		return err
	}
	s.setReady()
	s.leader.Store(l)
	defer s.leader.Store(nil)
	return l.Run(ctx)
}

// beginning says what kind of history this server would begin.
func (s *Server) beginning() leader.Beginning {
	// What others learn of a provisional history they drop with the next one: a
	// server that was alone once must not tell them its own.
	_, old := s.store.Read().History(nil)
	adopted := old.Provisional && !s.cfg.Provisional
	return leader.Beginning{
		// With files set aside, or a majority's word gone, entries that clients
		// know of may be lost; but once this life has begun a history, it is
		// the one.
		Anew:        (len(s.replica.SetAside()) > 0 || s.replica.Recovered() || adopted) && !s.IsReady(),
		Provisional: s.cfg.Provisional,
		Known:       s.cfg.Known(),
	}
}

// Apply commits a command and returns its index as clients see it, when the store
// shows it. A refusal of the state machine is a *catalog.Error; other errors are
// the catalog's kinds.
func (s *Server) Apply(ctx context.Context, request catalog.RequestID, body catalog.Body) (uint64, error) {
	cmd, err := catalog.Command{Time: time.Now(), Request: request, Body: body}.Encode()
	if err != nil {
		return 0, err
	}
	reply, index, err := s.replica.Apply(ctx, cmd)
	if err != nil {
		return 0, inCatalogTerms(err)
	}
	_, history := s.store.Read().History(nil)
	if refusal, ok := reply.(*catalog.Error); ok {
		return history.Base + index, refusal
	}
	return history.Base + index, nil
}

// terms are the catalog's for what consensus says of reads and writes.
var terms = map[error]error{
	consensus.ErrNoLeader: catalog.ErrNoLeader, consensus.ErrUnknownOutcome: catalog.ErrUnknownOutcome,
	consensus.ErrBusy: catalog.ErrBusy, consensus.ErrDiskFull: catalog.ErrDiskFull, consensus.ErrTooLarge: catalog.ErrTooLarge,
}

// inCatalogTerms makes an error of consensus one of the catalog's kinds.
func inCatalogTerms(err error) error {
	for own, term := range terms {
		if errors.Is(err, own) {
			return termError{err, term}
		}
	}
	return err
}

// termError is an error of consensus in its own words.
type termError struct {
	error
	kind error
}

// Is makes it the catalog's error.
func (e termError) Is(target error) bool { return target == e.kind }

// Unwrap is consensus's error.
func (e termError) Unwrap() error { return e.error }

// announceEvery is how often it is looked whether what gossip says is still right.
const announceEvery = time.Second

// announce has gossip say which history this server follows, and under which ID.
func (s *Server) announce(ctx context.Context) error {
	for said, first := "", true; ; {
		history := ""
		if s.IsReady() {
			_, h := s.store.Read().History(nil)
			history = h.ID
		}
		if first || history != said {
			if err := s.cfg.Network.Announce(s.id, history); err != nil {
				s.logger.Debug("cannot tell the server ID yet", "err", err)
			} else {
				said, first = history, false
			}
		}
		if !retry.WaitFor(ctx, announceEvery, nil) {
			return nil
		}
	}
}

// leaderCatalog is the catalog as the leader's loop sees it.
type leaderCatalog struct{ *Server }

// Read implements leader.Catalog.
func (c leaderCatalog) Read() leader.Reader { return c.store.Read() }

// Apply implements leader.Catalog.
func (c leaderCatalog) Apply(ctx context.Context, body catalog.Body) error {
	_, err := c.Server.Apply(ctx, c.requests.Next(1), body)
	return err
}
