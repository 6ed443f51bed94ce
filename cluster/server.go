package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// server is one life of what a host has that holds the catalog: consensus, the
// state machine behind it, what tells other hosts of it, and a leader's duties.
// When one of them fails all end and another server is made, with a store that
// the log fills anew.
type server struct {
	node    *Node
	logger  *slog.Logger
	id      string // in the servers' configuration
	store   *state.Store
	replica *consensus.Replica
	feed    *feed.Server
	boot    *bootstrap.Bootstrap // nil: this server never begins a cluster with others
	lease   time.Duration
	ends    chan error // see end
	// duties are those of the present time of leading; nil when there is none.
	duties atomic.Pointer[leader.Leader]
	// ready is closed when the store has caught up with the log and a history
	// has begun: what it says is the catalog.
	ready chan struct{}
	// ending is closed when the server begins to end.
	ending chan struct{}
}

// newServer makes a server; it opens no file but those that hold IDs.
func (n *Node) newServer(ctx context.Context) (*server, error) {
	dir, err := n.prepareDir()
	if err != nil {
		return nil, err
	}
	if err := n.settleAlone(dir); err != nil {
		return nil, err
	}
	cfg := n.cfg.Consensus
	cfg.StateMachine, cfg.Dir, cfg.Addr, cfg.Logger = state.New(), dir, n.raftAddr(), n.logger
	if cfg.ID, err = n.serverID(dir); err != nil {
		return nil, err
	}
	cfg.Bootstrap, cfg.OnDamage, cfg.Removed = n.begins(), consensus.BeginAnew, n.removed.Load()
	if n.cfg.Server && n.meetsOthers() {
		cfg.Stream, cfg.Address = n.raft.open(), n.raftAddrOf
		if !n.begins() {
			// Its vote is gone with its files: what it has acknowledged could
			// be voted away.
			cfg.OnDamage = consensus.Refuse
		}
		n.setTimeouts(ctx, &cfg)
	}
	if cfg.Recover, err = readPeers(dir); err != nil {
		return nil, err
	}
	replica, err := consensus.New(cfg)
	if err != nil {
		return nil, err
	}
	s := &server{
		node: n, logger: n.logger, id: cfg.ID, store: cfg.StateMachine.(*state.Store), replica: replica, lease: cfg.Lease,
		ends: make(chan error, 1), ready: make(chan struct{}), ending: make(chan struct{}),
	}
	s.feed, err = feed.NewServer(feed.ServerConfig{
		Store: s.store, Leader: s.heardLeader, WholeBelow: n.cfg.WholeBelow, Others: n.serversWithLeader,
		OnStream: n.onStream, Logger: n.logger,
	})
	if err == nil && cfg.Stream != nil && !n.begins() {
		s.boot, err = n.newBootstrapOf(s)
	}
	return s, err
}

// run returns when ctx has ended (nil) or when the server has failed, and all
// that it started has ended.
func (s *server) run(ctx context.Context) error {
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
	part("duties", s.lead)
	part("feed", s.feed.Run)
	part("start", s.awaitReady)
	if s.boot != nil {
		part("bootstrap", s.bootstrap)
	}
	if s.node.cfg.Server && s.node.meetsOthers() {
		part("timeouts", s.followRoundTrip)
		part("tags", s.tell)
	}
	// Raft hands leadership over before it ends, so the rest lasts as long.
	err := s.replica.Run(ctx)
	switch {
	case err == nil && ctx.Err() == nil:
		err = errors.New("consensus ended without being told to")
	case err == nil && isOwnEnd(context.Cause(ctx)):
		err = context.Cause(ctx)
	}
	close(s.ending)
	cancel()
	wg.Wait()
	return err
}

// end has this server end, with errAgain or errVoteGiven.
func (s *server) end(why error) {
	select {
	case s.ends <- why:
	default: // it ends already
	}
}

// isOwnEnd reports whether a server was to end for a reason of its own.
func isOwnEnd(cause error) bool {
	return errors.Is(cause, errAgain) || errors.Is(cause, errVoteGiven)
}

// bootstrap finds out with others who begins a cluster, once it is known that
// this server belongs to none.
func (s *server) bootstrap(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.replica.Opened():
		return s.boot.Run(ctx)
	}
}

// leads reports whether this server leads and does its duties.
func (s *server) leads() bool { return s.replica.IsLeader() && s.isReady() }

// heardLeader is how this server stands to its leader, for those it tells.
func (s *server) heardLeader() (known bool, last time.Duration) {
	last, ok := s.replica.LastContact()
	l, _ := s.replica.Leadership()
	return ok && l.LeaderID != "", last
}

// isReady reports whether the store holds the catalog.
func (s *server) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// setReady says that the store holds the catalog from now on. A recovery by
// peers.json is over then, and must not be made again at the next start.
func (s *server) setReady() {
	if s.replica.Recovered() {
		if err := s.node.dropPeers(); err != nil {
			s.logger.Error("peers.json has been used and cannot be removed: remove it before this server starts again", "err", err)
		}
	}
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if s.isReady() {
		return
	}
	if s.node.removed.CompareAndSwap(true, false) {
		s.logger.Info("this server is one of the cluster's again")
	}
	if old := s.node.known.Swap(s); old != nil {
		old.store.Close() // who waits for its changes reads the new one
	}
	close(s.ready)
	close(s.node.changed)
	s.node.changed = make(chan struct{})
	// The agent's writes have failed, if it had any: not all of a back-off later.
	s.node.agent.Resync(0)
}

// catchUpLook is how often a follower that begins looks whether it has caught
// up.
const catchUpLook = 20 * time.Millisecond

// awaitReady makes a follower ready once it has applied all that was committed
// when it first heard of a leader. A leader says so itself.
func (s *server) awaitReady(ctx context.Context) error {
	for target := uint64(0); !s.isReady(); {
		if !retry.Wait(ctx, catchUpLook) {
			return nil
		}
		known, last := s.heardLeader()
		if !known || last > time.Second || s.replica.IsLeader() {
			target = 0
			continue
		}
		if target == 0 {
			target = s.replica.Committed()
		}
		if _, h := s.store.Read().History(nil); target > 0 && s.replica.Applied() >= target && h.ID != "" {
			s.setReady()
		}
	}
	return nil
}

// lead does a leader's duties whenever this server leads.
func (s *server) lead(ctx context.Context) error {
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
		go func() { done <- s.dutiesOf(term) }()
		select {
		case <-changed:
			cancel()
			<-done
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				s.logger.Error("leader cannot do its duties, will try again", "err", err)
				retry.Wait(ctx, dutiesRetry)
			}
		}
		cancel()
	}
	return nil
}

// dutiesRetry is how soon a leader that could not begin tries again.
const dutiesRetry = time.Second

// dutiesOf is one time of leading: catch up, begin a history if need be, then
// reconcile until ctx ends.
func (s *server) dutiesOf(ctx context.Context) error {
	if err := s.replica.Barrier(ctx); err != nil {
		return fmt.Errorf("catch up with the log: %w", err)
	}
	cfg := leader.Config{
		Catalog: ledCatalog{s}, Members: leader.Alone(s.node.member()),
		ReconnectTimeout: s.node.cfg.Gossip.ReconnectTimeout, Autopilot: s.node.cfg.Autopilot, Logger: s.logger,
	}
	if s.node.cfg.Server && s.node.meetsOthers() {
		cfg.Members, cfg.Servers = ledMembers{s.node}, ledServers{s}
		cfg.RaftID, cfg.ClusterID, cfg.Expect = s.id, s.replica.ClusterID(), s.node.cfg.BootstrapExpect
	}
	l, err := leader.New(cfg)
	if err != nil {
		return err
	}
	if err := l.Begin(ctx, s.beginning()); err != nil {
		return err
	}
	s.setReady()
	s.duties.Store(l)
	defer s.duties.Store(nil)
	return l.Run(ctx)
}

// beginning says what kind of history this server would begin.
func (s *server) beginning() leader.Beginning {
	provisional := s.node.isProvisional()
	// What others learn of a provisional history they drop with the next one: a
	// server that was alone once must not tell them its own.
	_, old := s.store.Read().History(nil)
	adopted := old.Provisional && !provisional
	return leader.Beginning{
		// With files set aside, or a majority's word gone, entries that clients
		// know of may be lost; but once this life has begun a history, it is
		// the one.
		Anew:        (len(s.replica.SetAside()) > 0 || s.replica.Recovered() || adopted) && !s.isReady(),
		Provisional: provisional,
		Known:       s.node.view.Load().Index(),
	}
}

// apply commits a command and returns its index as clients see it, when the
// store shows it. A refusal of the state machine is a *catalog.Error.
func (s *server) apply(ctx context.Context, request catalog.RequestID, body catalog.Body) (uint64, error) {
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

func (e termError) Is(target error) bool { return target == e.kind }
func (e termError) Unwrap() error        { return e.error }

// tell has gossip say which history this server follows, and under which ID.
func (s *server) tell(ctx context.Context) error {
	said := ""
	for {
		_, h := s.store.Read().History(nil)
		_, netChanged := s.node.network()
		id := h.ID[:min(len(h.ID), historyDigits+2)] // two hyphens among them
		if w, _ := s.node.network(); w != nil && s.isReady() && id != said {
			if err := w.gossip.SetTags(map[string]string{tagHistory: id, tagRaft: s.id}); err == nil {
				said = id
			}
		} else if w != nil && said == "" {
			if err := w.gossip.SetTags(map[string]string{tagRaft: s.id}); err != nil {
				s.logger.Debug("cannot tell the server ID yet", "err", err)
			}
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-netChanged:
			said = ""
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ledCatalog is the catalog as the leader's duties see it.
type ledCatalog struct{ *server }

// Read implements leader.Catalog.
func (c ledCatalog) Read() leader.Reader { return c.store.Read() }

// Apply implements leader.Catalog.
func (c ledCatalog) Apply(ctx context.Context, body catalog.Body) error {
	_, err := c.apply(ctx, c.node.newRequestID(), body)
	return err
}
