package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/feed"
	"meibo/cluster/link"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
	"meibo/cluster/server"
	"meibo/cluster/view"
)

// followRetry is how long to wait after a stream was lost before the next is
// asked for: the client has pauses of its own for servers that don't answer.
const followRetry = 20 * time.Millisecond

// follow feeds the view until ctx ends: from the server of this host once that
// knows the catalog, else from another.
func (n *Node) follow(ctx context.Context) {
	for ctx.Err() == nil {
		s, _, changed := n.running()
		w, netChanged := n.network()
		switch {
		case s != nil && s.IsReady():
			n.followLocal(ctx, s)
		case w != nil:
			n.followStream(ctx, w, changed, netChanged)
		default:
			select {
			case <-ctx.Done():
			case <-changed:
			case <-netChanged:
			}
			continue
		}
		retry.Wait(ctx, followRetry)
	}
}

// followLocal feeds the view from the server of this host until that ends.
func (n *Node) followLocal(ctx context.Context, s *server.Server) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer n.cancelOn(ctx, cancel, s.Ending(), nil)()
	local := s.Feed().Local(n.view.Resume)
	defer local.Close()
	err := n.view.Follow(ctx, local)
	// Why the server stops is for the server to say.
	if err != nil && ctx.Err() == nil && !errors.Is(err, feed.ErrStopped) {
		n.logger.Error("view no longer follows the catalog of this host", "err", err)
	}
}

// followStream feeds the view from another server until the stream is lost, the
// network changes, or the server of this host knows the catalog itself.
func (n *Node) followStream(ctx context.Context, w *network, changed, netChanged <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	own := make(chan struct{})
	defer n.cancelOn(ctx, cancel, own, netChanged)()
	if n.holdsCatalog() {
		defer n.closeWhenReady(ctx, cancel, own, changed)()
	}
	stream, err := w.feed.Open(ctx)
	if err != nil {
		return
	}
	defer stream.Close()
	addr, _ := w.feed.Server()
	n.logger.Info("catalog is followed", "server", addr)
	var meeting sync.WaitGroup
	defer meeting.Wait()
	meeting.Go(func() { w.meetServer(ctx, addr) })
	if err := n.view.Follow(ctx, stream); err != nil && !errors.Is(err, net.ErrClosed) { // closed here: this host stops, or a key was removed
		n.logger.Info("stream from a server is lost, another is asked", "server", addr, "err", err)
	}
}

// cancelOn cancels when one of the channels is closed. What it returns waits
// until it no longer watches; ctx must have been cancelled.
func (n *Node) cancelOn(ctx context.Context, cancel func(), a, b <-chan struct{}) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-a:
		case <-b:
		}
		cancel()
	}()
	return func() { cancel(); <-done }
}

// closeWhenReady closes own once the server of this host knows the catalog.
func (n *Node) closeWhenReady(ctx context.Context, cancel func(), own chan struct{}, changed <-chan struct{}) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			var s *server.Server
			if s, _, changed = n.running(); s != nil && s.IsReady() {
				close(own)
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

const (
	// syncSpread is over how long the agents of a small cluster spread their
	// full syncs with a catalog that begins anew. (Consul's figure, for servers
	// that appear.)
	syncSpread = 3 * time.Second
	// historyLook is the least time between two looks at the view's history.
	historyLook = 100 * time.Millisecond
	// rightedAfter is how long what others said of a host stands, and within which time
	// it is righted then.
	rightedAfter = time.Second
)

// meetServer joins a server that this host is connected with and that gossip has for
// dead: one that came back with nothing knows nobody to call, and would tell those who
// ask it the little that it has heard, until somebody calls it.
func (w *network) meetServer(ctx context.Context, addr string) {
	for _, m := range w.gossip.Members().Role(roleServer) {
		if m.Status != membership.Failed || linkAddr(m) != addr {
			continue
		}
		at := m.At().String()
		if _, err := w.gossip.Join(ctx, []string{at}); err != nil {
			w.logger.Debug("a server that is back is not met yet", "addr", at, "err", err)
		}
	}
}

// syncAnew has the agent tell a catalog that begins anew all that this host
// holds, until ctx ends: nobody else will. The same where somebody took this host's
// node out of the catalog, or changed it.
func (n *Node) syncAnew(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due time.Time // when what is mistold is to be righted; zero: it isn't
	told := false     // it was right in this history
	spread := func() time.Duration { return syncSpread * time.Duration(agent.Scale(len(n.Members()))) }
	for last := n.view.Load().History().ID; ; {
		s := n.view.Load()
		now := time.Now()
		switch mistold := n.view.OwnIsMistold(); {
		case s.History().ID != last:
			last = s.History().ID
			n.agent.Resync(spread())
			due, told = time.Time{}, false
		case !mistold:
			due, told = time.Time{}, true
		case due.IsZero():
			if due = now.Add(rightedAfter); !told {
				due = due.Add(spread()) // the agent is about to say it anyway
			}
		case !now.Before(due):
			n.agent.Resync(rightedAfter)
			due = now.Add(2 * (rightedAfter + spread()))
		}
		wake := time.Hour
		if !due.IsZero() {
			wake = due.Sub(now)
		}
		timer.Reset(wake)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.Superseded():
		}
		if !retry.Wait(ctx, historyLook) {
			return
		}
	}
}

const (
	// streamIsSoon is how long others are waited for by a host that knows the
	// catalog from before: a server's word takes a few hundred milliseconds.
	streamIsSoon = time.Second
	// neighboursAreSoon is that time for one to which a server has told a catalog
	// that not all members know yet.
	neighboursAreSoon = 2 * time.Second
)

// endExpecting bounds how long this host takes what it knows for less than what
// others know: until then unknown names are not denied, which must not last.
func (n *Node) endExpecting(ctx context.Context) {
	patience := streamIsSoon
	if !n.view.Load().HasBase() {
		select {
		case <-ctx.Done():
			return
		case <-n.Ready():
		}
		patience = neighboursAreSoon
	}
	if retry.Wait(ctx, patience) {
		n.askAhead(ctx)
		n.awaitAgents(ctx)
		n.view.Learned()
	}
}

// awaitAgents waits, while the catalog has only begun, for one of those who knew what
// was before: servers that lost all they had know each other alone, until they are called.
func (n *Node) awaitAgents(ctx context.Context) {
	for n.view.Young() {
		w, changed := n.network()
		if w != nil {
			members := w.gossip.Members()
			changed = members.Changed()
			for _, m := range members.Members() {
				if m.Lives() && !isServer(m) && m.ID != n.cfg.NodeID {
					return
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(neighbourPause):
		}
	}
}

// askAhead asks neighbours for what this host may have learned last and doesn't have on
// disk, where no server tells it.
func (n *Node) askAhead(ctx context.Context) {
	if !n.view.Behind() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, neighboursAreSoon)
	defer cancel()
	w, err := n.awaitNetwork(ctx)
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-w.gossip.Joined():
		w.askForAll(ctx, make(map[string]bool), n.view.Behind)
	}
}

const (
	// neighboursAsked is how many are asked for a name that this host lacks.
	neighboursAsked = 3
	// neighboursAskedForAll is how many are asked in a round for all they know:
	// more, as some may be as new as this host.
	neighboursAskedForAll = 8
	// neighbourTimeout bounds the wait for each.
	neighbourTimeout = 2 * time.Second
)

// Neighbour asks other hosts for a service that this one knows nothing of, and
// reports whether it knows more now.
func (n *Node) Neighbour(ctx context.Context, name string) bool {
	w, _ := n.network()
	if w == nil {
		return false
	}
	asked := 0
	for _, m := range shuffled(w.gossip.Members().Members()) {
		if m.ID == n.cfg.NodeID || m.Status != membership.Alive || asked == neighboursAsked || ctx.Err() != nil {
			continue
		}
		asked++
		if more, _ := w.askNeighbour(ctx, m, name); more {
			return true
		}
	}
	return false
}

// askNeighbour asks a member for one service, or for all it knows, and reports
// whether this host knows more now, and whether the member has said all it knew.
func (w *network) askNeighbour(ctx context.Context, m *Member, name string) (more, told bool) {
	ctx, cancel := context.WithTimeout(ctx, neighbourTimeout)
	defer cancel()
	ask := view.AskNeighbour
	conn, err := w.link.Dial(ctx, linkAddr(m), view.Protocol, m.ID)
	if errors.Is(err, link.ErrProtocol) {
		ask = view.AskNeighbourV1
		conn, err = w.link.Dial(ctx, linkAddr(m), view.ProtocolV1, m.ID)
	}
	if err != nil {
		return false, false
	}
	known, err := ask(ctx, conn, name)
	if err != nil {
		w.logger.Debug("a neighbour tells nothing", "node", m.Name, "service", name, "err", err)
		return false, errors.Is(err, view.ErrKnowsNothing)
	}
	w.node.restoreLives(known.Lives)
	if !w.node.view.Import(known, view.FromNeighbour) {
		return false, true
	}
	w.logger.Info("a neighbour tells what it knows", "node", m.Name, "service", name)
	return true, true
}
