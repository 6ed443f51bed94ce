package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/consensus"
	"meibo/cluster/leader"
)

// server is one life of what a host has that holds the catalog: consensus, the
// state machine behind it, and a leader's duties. When one of them fails all end
// and another server is made, with a store that the log fills anew.
type server struct {
	node    *Node
	logger  *slog.Logger
	store   *state.Store
	replica *consensus.Replica
	// ready is closed when the store has caught up with the log and a history
	// has begun: what it says is the catalog.
	ready chan struct{}
	// ended is closed when run returns: watches on the store stay silent then.
	ended chan struct{}
}

// newServer makes a server; it opens no file but the node ID's.
func (n *Node) newServer() (*server, error) {
	dir, err := n.prepareDir()
	if err != nil {
		return nil, err
	}
	store := state.New()
	replica, err := consensus.New(consensus.Config{
		StateMachine: store,
		ID:           n.cfg.NodeID,
		Addr:         n.raftAddr(),
		Dir:          dir,
		Bootstrap:    n.begins(),
		// One host alone has nobody whose votes could be lost with its files.
		OnDamage: consensus.BeginAnew,
		Logger:   n.logger,
	})
	if err != nil {
		return nil, err
	}
	return &server{
		node: n, logger: n.logger, store: store, replica: replica,
		ready: make(chan struct{}), ended: make(chan struct{}),
	}, nil
}

// run returns when ctx has ended (nil) or when the server has failed, and all
// that it started has ended.
func (s *server) run(ctx context.Context) error {
	defer close(s.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.lead(ctx) })
	wg.Go(func() { s.feedView(ctx) })
	err := s.replica.Run(ctx)
	if err == nil && ctx.Err() == nil {
		err = errors.New("consensus ended without being told to")
	}
	// Duties and feed ask a replica that is no more; they end by their context.
	cancel()
	wg.Wait()
	return err
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

// setReady says that the store holds the catalog from now on. It is called by
// one goroutine.
func (s *server) setReady() {
	if s.isReady() {
		return
	}
	s.node.known.Store(s)
	close(s.ready)
	// The agent's writes have failed, if it had any: not all of a back-off later.
	s.node.agent.Resync(0)
}

// lead does a leader's duties whenever this server leads.
func (s *server) lead(ctx context.Context) {
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
				pause(ctx, dutiesRetry)
			}
		}
		cancel()
	}
}

// dutiesRetry is how soon a leader that could not begin tries again.
const dutiesRetry = time.Second

// dutiesOf is one time of leading: catch up, begin a history if need be, then
// reconcile until ctx ends.
func (s *server) dutiesOf(ctx context.Context) error {
	if err := s.replica.Barrier(ctx); err != nil {
		return fmt.Errorf("catch up with the log: %w", err)
	}
	l, err := leader.New(leader.Config{
		Catalog: ledCatalog{s}, Members: leader.Alone(s.node.member()), Logger: s.logger,
	})
	if err != nil {
		return err
	}
	if err := l.Begin(ctx, s.beginning()); err != nil {
		return err
	}
	s.setReady()
	return l.Run(ctx)
}

// beginning says what kind of history this server would begin.
func (s *server) beginning() leader.Beginning {
	return leader.Beginning{
		// With files set aside, entries that clients know of may be lost; but
		// once this life has begun a history, it is the one.
		Anew:        len(s.replica.SetAside()) > 0 && !s.isReady(),
		Provisional: s.node.isProvisional(),
		Known:       s.node.view.Load().Index(),
	}
}

// feedView has the view follow the store once it holds the catalog.
func (s *server) feedView(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.ready:
	}
	src := newSource(s.store, s.replica.IsLeader)
	defer src.close()
	if err := s.node.view.Follow(ctx, src); err != nil {
		s.logger.Error("view no longer follows the catalog of this host", "err", err)
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
		return 0, err
	}
	_, history := s.store.Read().History(nil)
	if refusal, ok := reply.(*catalog.Error); ok {
		return history.Base + index, refusal
	}
	return history.Base + index, nil
}

// ledCatalog is the catalog as the leader's duties see it.
type ledCatalog struct{ *server }

// Read implements leader.Catalog.
func (c ledCatalog) Read() leader.Reader { return c.store.Read() }

// Apply implements leader.Catalog.
func (c ledCatalog) Apply(ctx context.Context, body catalog.Body) error {
	_, err := c.apply(ctx, c.node.nextRequest(), body)
	return err
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
