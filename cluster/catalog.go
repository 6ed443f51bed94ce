package cluster

import (
	"context"
	"net/http"
	"strings"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/rpc"
	"meibo/cluster/server"
)

// Read returns the present state of the catalog. On a server that leads, or for
// a stale read on any server, that is the store's; it waits for a leader where
// the consistency needs one, as long as Config.HoldTime; then it is catalog.ErrNoLeader. While hosts
// that live haven't told a new catalog what they hold (rule 18 of the views), a
// host that knows more by its view answers its own clients from that; so it does
// for a stale or a cached read when the servers are gone.
func (n *Node) Read(ctx context.Context, c catalog.Consistency) (catalog.Reader, catalog.ReadInfo, error) {
	r, info, err := n.read(ctx, c)
	return r, info, rpc.RecordOutcome(ctx, err)
}

func (n *Node) read(ctx context.Context, c catalog.Consistency) (catalog.Reader, catalog.ReadInfo, error) {
	if n.readsView(ctx, c) {
		return n.viewReader(ctx)
	}
	if c == catalog.Stale {
		if s := n.known.Load(); s != nil {
			return s.Read(), n.readInfo(s), nil
		}
	}
	s, err := n.leading(ctx)
	if err != nil && n.mayReadView(ctx, c) {
		return n.viewReader(ctx)
	}
	if err != nil {
		return nil, catalog.ReadInfo{}, err
	}
	if c == catalog.Consistent {
		if err := s.Verify(ctx); err != nil {
			return nil, catalog.ReadInfo{}, err
		}
	}
	return s.Read(), n.readInfo(s), nil
}

// readsView reports whether a read is answered from the view: what other hosts
// ask is the servers' own word, and so is what must be consistent. A server's
// store is as good for a stale read as its view.
func (n *Node) readsView(ctx context.Context, c catalog.Consistency) bool {
	switch {
	case c == catalog.Consistent || rpc.IsRemote(ctx):
		return false
	case n.view.Merging() && (c != catalog.Default || n.view.Load().Fresh()): // without a leader it fails, as Consul's does
		return true
	case !n.mayReadView(ctx, c) || c == catalog.Stale && n.known.Load() != nil:
		return false
	}
	return !n.view.Load().Fresh() || ctx.Value(unansweredKey{}) != nil
}

// mayReadView reports whether the view is good enough for a read that no server
// answers.
func (n *Node) mayReadView(ctx context.Context, c catalog.Consistency) bool {
	return (c == catalog.Stale || c == catalog.Cached) && !rpc.IsRemote(ctx) && n.view.Load().HasBase()
}

// unansweredKey marks the context of a read that servers were asked in vain.
type unansweredKey struct{}

// readLeading is the newest state there is, on the leader alone.
func (n *Node) readLeading(ctx context.Context) (catalog.Reader, error) {
	s, err := n.leading(ctx)
	if err != nil {
		return nil, err
	}
	return s.Read(), nil
}

func (n *Node) readInfo(s *server.Server) catalog.ReadInfo {
	known, last := s.LeaderContact()
	return catalog.ReadInfo{KnownLeader: known, LastContact: last}
}

// leading returns the server of this host once it leads a catalog that is
// known. It waits for that while one is starting or electing.
func (n *Node) leading(ctx context.Context) (*server.Server, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, n.cfg.HoldTime, catalog.ErrNoLeader)
	defer cancel()
	for {
		s, status, changed := n.running()
		var ready, lead <-chan struct{}
		switch {
		case status.State != Starting && s == nil:
			return nil, catalog.ErrNoLeader
		case s != nil && !n.mayLeadSoon(s):
			return nil, catalog.ErrNoLeader
		case s == nil:
		case !s.IsReady():
			ready = s.Ready()
		default:
			var l consensus.Leadership
			if l, lead = s.Leadership(); l.Leading {
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		case <-ready:
		case <-lead:
		}
	}
}

// mayLeadSoon reports whether it is of use to wait for this server to lead:
// while another is known to, it isn't.
func (n *Node) mayLeadSoon(s *server.Server) bool {
	l, _ := s.Leadership()
	return l.Leading || l.LeaderID == ""
}

// Forward has another host answer a request about the catalog and reports
// whether it did; false: this host is to answer. Safe for concurrent use.
func (n *Node) Forward(w http.ResponseWriter, r *http.Request, c catalog.Consistency, effect catalog.Effect) bool {
	net, _ := n.network()
	ofCatalog := effect == catalog.Reads && !isAboutServers(r)
	switch {
	case net == nil || ofCatalog && n.readsView(r.Context(), c):
		return false
	case !ofCatalog || !n.mayReadView(r.Context(), c):
		return net.rpc.Forward(w, r, c, effect, false)
	}
	done := net.rpc.Forward(w, r, c, effect, true)
	if !done {
		*r = *r.WithContext(context.WithValue(r.Context(), unansweredKey{}, true))
	}
	return done
}

// isAboutServers reports whether a request is about the servers themselves, of
// which no view knows.
func isAboutServers(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/v1/status/") || strings.HasPrefix(r.URL.Path, "/v1/operator/")
}
