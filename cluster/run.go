package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"meibo/cluster/consensus"
	"meibo/cluster/retry"
	"meibo/cluster/server"
)

// Pauses between attempts at what failed.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// steady is how long something must have run for its failure to count as
	// the first one again.
	steady = time.Minute
)

// Run runs the host until ctx ends, and returns nil when all it started has
// ended. No failure ends it before.
//
// The parts end in this order, each before the next. The agent: its checks
// would report to a catalog that is going, and a status that is kept should be
// the last one. Consensus with the leader loop: leadership is handed over,
// writes under way are answered, the log is closed. The network. The view last,
// so that lookups are answered from it as long as anybody asks; its file is
// written for the last time just before.
func (n *Node) Run(ctx context.Context) error {
	own := context.WithoutCancel(ctx)
	endView := start(own, func(ctx context.Context) { n.supervise(ctx, "view", n.view.Run) })
	endFile := start(own, n.persistView)
	endFollow := start(own, n.follow)
	endSync := start(own, n.syncAnew)
	endExpecting := start(own, n.endExpecting)
	endNetwork := start(own, n.runNetwork)
	endServer := start(own, n.runServer)
	endAgent := start(own, func(ctx context.Context) { n.supervise(ctx, "agent", n.agent.Run) })
	<-ctx.Done()
	endAgent()
	endServer()
	endNetwork()
	endExpecting()
	endSync()
	endFollow()
	endFile()
	endView()
	return nil
}

// persistView keeps the view on disk until ctx ends.
func (n *Node) persistView(ctx context.Context) {
	if n.file != nil {
		n.supervise(ctx, "file of the view", func(ctx context.Context) error { return n.file.Run(ctx, n.view) })
	}
}

// start runs f and returns what ends it and waits for it.
func start(ctx context.Context, f func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// supervise runs something that should only end with ctx until then.
func (n *Node) supervise(ctx context.Context, what string, run func(context.Context) error) {
	for wait := newBackoff(); ; {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		d := wait.after(time.Since(began))
		n.logger.Log(ctx, wait.level(err), what+" ended, will be started again", "err", err, "dur", d)
		retry.Wait(ctx, d)
	}
}

// runServer keeps a server running until ctx ends, if this host has one.
func (n *Node) runServer(ctx context.Context) {
	if !n.holdsCatalog() {
		n.setStatus(Status{State: Absent})
		<-ctx.Done()
		return
	}
	if n.isProvisional() {
		n.runProvisional(ctx)
		return
	}
	n.runServers(ctx)
}

// runProvisional runs the catalog of a host that is alone until it joins others:
// then what it began on its own is dropped.
func (n *Node) runProvisional(ctx context.Context) {
	alone, cancel := context.WithCancel(ctx)
	go func() { // ends with alone
		select {
		case <-n.joined:
			cancel()
		case <-alone.Done():
		}
	}()
	n.runServers(alone)
	cancel()
	if ctx.Err() != nil {
		return
	}
	n.known.Store(nil)
	n.setStatus(Status{State: Absent})
	n.logger.Info("this host belongs to a cluster now, the catalog that it kept for itself is dropped")
	if n.cfg.DataDir != "" {
		dir := n.raftFolder()
		if err := os.RemoveAll(dir); err != nil {
			n.logger.Warn("the catalog that this host kept for itself cannot be removed", "path", dir, "err", err)
		}
	}
	<-ctx.Done()
}

// runServers runs one life of the server after the other until ctx ends.
func (n *Node) runServers(ctx context.Context) {
	failures := 0
	for wait := newBackoff(); ; {
		began := time.Now()
		err := n.serveOnce(ctx)
		if ctx.Err() != nil {
			n.endServer(err)
			return
		}
		switch {
		case errors.Is(err, server.ErrRestart):
			continue
		case errors.Is(err, server.ErrVoteGivenUp), errors.Is(err, consensus.ErrRemoved) && n.isLeaving():
			n.logger.Info("this server gave up its vote: it leaves")
			n.awaitStay(ctx)
			continue
		case errors.Is(err, consensus.ErrRemoved): // as somebody ordered
			n.logRemoved(err)
			continue
		}
		if errors.Is(err, consensus.ErrIDRetired) {
			if again := n.serverIDs.Retire(n.raftFolder()); again == nil {
				n.logger.Warn("Raft files of this server are lost: it comes back under a new ID, without a vote at first", "err", err)
				continue
			} else {
				err = errors.Join(err, again)
			}
		}
		failures++
		d := wait.after(time.Since(began))
		n.setStatus(Status{State: Failed, Err: err, Failures: failures, Retry: time.Now().Add(d)})
		n.logger.Log(ctx, wait.level(err), "catalog of this host failed, will be opened again; lookups go on from what is known",
			"err", err, "dur", d)
		retry.Wait(ctx, d)
	}
}

// logRemoved says, once until it is one of theirs again, that the other servers
// removed this one. One that learns it as it starts has left before, or was away.
func (n *Node) logRemoved(err error) {
	switch was := n.removed.Swap(true); {
	case was:
	case n.known.Load() == nil:
		n.logger.Info("this server is not in the Raft configuration: it waits for the leader to take it in, without a vote at first", "err", err)
	default:
		n.logger.Warn("the other servers took this one out of the Raft configuration: it waits to be taken in again, without a vote at first; to end that, run `meibo leave` here", "err", err)
	}
}

// setLeaving says whether this server gives up its vote for good.
func (n *Node) setLeaving(leaving bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leaving = leaving
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) isLeaving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leaving
}

// awaitStay returns when ctx ends, or this host stays after all.
func (n *Node) awaitStay(ctx context.Context) {
	n.setStatus(Status{State: Absent})
	for n.isLeaving() {
		_, _, changed := n.running()
		if !n.isLeaving() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// endServer says how the last server ended.
func (n *Node) endServer(err error) {
	if err != nil {
		n.logger.Error("catalog of this host did not end well", "err", err)
	}
	n.setStatus(Status{State: Stopped, Err: err})
}

// serveOnce is one life of a server.
func (n *Node) serveOnce(ctx context.Context) error {
	s, err := n.newServer(ctx)
	if err != nil {
		return err
	}
	n.setServer(s, Status{State: Running})
	defer n.setServer(nil, Status{State: Stopped})
	return s.Run(ctx)
}

// backoff is how long to wait between attempts, and what is said of them.
type backoff struct {
	pause retry.Backoff
	said  string // why the last attempt failed
}

func newBackoff() *backoff {
	return &backoff{pause: retry.Backoff{Min: firstPause, Max: lastPause}}
}

// level is at which level it is said why an attempt failed: the same once, until
// one has lasted.
func (b *backoff) level(err error) slog.Level {
	if err != nil && err.Error() == b.said {
		return slog.LevelDebug
	}
	if err != nil {
		b.said = err.Error()
	}
	return slog.LevelError
}

// after returns the pause after an attempt that lasted so long.
func (b *backoff) after(lasted time.Duration) time.Duration {
	if lasted >= steady {
		b.pause.Reset()
		b.said = ""
	}
	return b.pause.Next()
}
