package cluster

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/consensus"
)

// holdTime is how long a read or write waits for a leader before it fails, as
// Consul's rpc_hold_timeout. A host that starts, or elects, is done well before.
const holdTime = 7 * time.Second

// ErrNoLeader means that no server leads, as far as this host knows. A write
// that failed with it did not happen.
var ErrNoLeader = errors.New("no cluster leader")

// Consistency is what a read asks of the servers.
type Consistency uint8

const (
	// Default reads what the leader has, which may be old by a leader's lease.
	Default Consistency = iota
	// Stale reads what is at hand, leader or not.
	Stale
	// Consistent reads after the leader has made sure that it still is one.
	Consistent
	// Cached is Default while a server answers, and else what this host knows.
	Cached
)

// ReadInfo says how fresh a Reader is.
type ReadInfo struct {
	KnownLeader bool
	LastContact time.Duration // since the last word of a leader; 0 on the leader
	Kept        bool          // it is what this host knows, no server was asked
}

// Read returns the present state of the catalog. On a server that leads, or for
// a stale read on any server, that is the store's; it waits for a leader where
// the consistency needs one, at most 7 s; then it is ErrNoLeader. While hosts
// that live haven't told a new catalog what they hold (rule 18 of the views), a
// host that knows more by its view answers its own clients from that; so it does
// for a stale or a cached read when the servers are gone.
func (n *Node) Read(ctx context.Context, c Consistency) (Reader, ReadInfo, error) {
	r, info, err := n.read(ctx, c)
	return r, info, noteOutcome(ctx, err)
}

func (n *Node) read(ctx context.Context, c Consistency) (Reader, ReadInfo, error) {
	if n.readsView(ctx, c) {
		return n.viewReader(ctx)
	}
	if c == Stale {
		if s := n.known.Load(); s != nil {
			return s.read(), n.readInfo(s), nil
		}
	}
	s, err := n.leading(ctx)
	if err != nil && n.mayReadView(ctx, c) {
		return n.viewReader(ctx)
	}
	if err != nil {
		return nil, ReadInfo{}, err
	}
	if c == Consistent {
		if err := s.replica.Verify(ctx); err != nil {
			return nil, ReadInfo{}, noLeader(err)
		}
	}
	return s.read(), n.readInfo(s), nil
}

// readsView reports whether a read is answered from the view: what other hosts
// ask is the servers' own word, and so is what must be consistent. A server's
// store is as good for a stale read as its view.
func (n *Node) readsView(ctx context.Context, c Consistency) bool {
	switch {
	case c == Consistent || carriedIn(ctx) != nil:
		return false
	case n.view.Merging() && (c != Default || n.view.Load().Fresh()): // without a leader it fails, as Consul's does
		return true
	case !n.mayReadView(ctx, c) || c == Stale && n.known.Load() != nil:
		return false
	}
	return !n.view.Load().Fresh() || ctx.Value(unansweredKey{}) != nil
}

// mayReadView reports whether the view is good enough for a read that no server
// answers.
func (n *Node) mayReadView(ctx context.Context, c Consistency) bool {
	return (c == Stale || c == Cached) && carriedIn(ctx) == nil && n.view.Load().HasBase()
}

// unansweredKey marks the context of a read that servers were asked in vain.
type unansweredKey struct{}

// readLeading is the newest state there is, on the leader alone.
func (n *Node) readLeading(ctx context.Context) (Reader, error) {
	s, err := n.leading(ctx)
	if err != nil {
		return nil, err
	}
	return s.read(), nil
}

func (n *Node) readInfo(s *server) ReadInfo {
	known, last := s.heardLeader()
	return ReadInfo{KnownLeader: known, LastContact: last}
}

// Apply carries out a command and returns its index as clients see it, once the
// catalog here and lookups on this host show it. A *catalog.Error is the state
// machine's refusal; ErrNoLeader means that it did not happen; of any other
// error the outcome is unknown. What body points at is not modified.
func (n *Node) Apply(ctx context.Context, body catalog.Body) (uint64, error) {
	index, err := n.write(ctx, body)
	if err != nil {
		return 0, noteOutcome(ctx, err)
	}
	if w, _ := n.network(); w != nil {
		w.feed.Await(index)
	}
	if err := n.view.Wait(ctx, index); err != nil {
		// It did happen; lookups will show it as soon as they can.
		n.logger.Warn("a write does not show in lookups yet", "index", index, "err", err)
	}
	return index, nil
}

// write is Apply without the wait for lookups. A command that another host sent
// keeps the request ID that it came with.
func (n *Node) write(ctx context.Context, body catalog.Body) (uint64, error) {
	w := n.toOthers()
	if w != nil {
		return w.carrier.apply(ctx, body)
	}
	request, ok := requestFrom(ctx)
	if !ok {
		request = n.nextRequest()
	}
	index, err := n.writeAs(ctx, request, body)
	if w, _ = n.network(); w != nil && errors.Is(err, consensus.ErrUnknownOutcome) && ctx.Err() == nil {
		// Whoever leads now carries it out, unless that has happened.
		return w.carrier.apply(withRequest(ctx, request), body)
	}
	return index, err
}

// writeHere is write on the server that leads, for a host that sent the command.
func (n *Node) writeHere(ctx context.Context, body catalog.Body) (uint64, error) {
	request, ok := requestFrom(ctx)
	if !ok {
		request = n.nextRequest()
	}
	return n.writeAs(ctx, request, body)
}

func (n *Node) writeAs(ctx context.Context, request catalog.RequestID, body catalog.Body) (uint64, error) {
	s, err := n.leading(ctx)
	if err != nil {
		return 0, err
	}
	index, err := s.apply(ctx, request, body)
	return index, noLeader(err)
}

// toOthers is what a write goes through when another host leads; nil when this
// one does, or knows nobody else.
func (n *Node) toOthers() *network {
	w, _ := n.network()
	s, _, _ := n.running()
	if w == nil || s != nil && s.leads() {
		return nil
	}
	return w
}

// noLeader puts consensus's word for it into this package's.
func noLeader(err error) error {
	if errors.Is(err, consensus.ErrNoLeader) {
		return ErrNoLeader
	}
	return err
}

func (n *Node) nextRequest() catalog.RequestID {
	return catalog.RequestID{Client: n.client, Counter: n.requests.Add(1)}
}

// leading returns the server of this host once it leads a catalog that is
// known. It waits for that while one is starting or electing.
func (n *Node) leading(ctx context.Context) (*server, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, holdTime, ErrNoLeader)
	defer cancel()
	for {
		s, status, changed := n.running()
		var ready, lead <-chan struct{}
		switch {
		case status.State != Starting && s == nil:
			return nil, ErrNoLeader
		case s != nil && !n.mayLeadSoon(s):
			return nil, ErrNoLeader
		case s == nil:
		case !s.isReady():
			ready = s.ready
		default:
			var l consensus.Leadership
			if l, lead = s.replica.Leadership(); l.Leading {
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
func (n *Node) mayLeadSoon(s *server) bool {
	l, _ := s.replica.Leadership()
	return l.Leading || l.LeaderID == ""
}

// read returns the present state. A watch on one whose server has ended waits
// for another server.
func (s *server) read() Reader {
	_, _, changed := s.node.running()
	select {
	case <-s.ended:
		return &storeReader{s.store.Read(), changed}
	default:
		return &storeReader{s.store.Read(), s.ended}
	}
}

// Reader is one unchanging state of the catalog. Each method returns the index
// of its own result and adds to ws what is closed when the result may have
// changed. Names compare in any letter case.
type Reader interface {
	// Nodes returns all nodes, by name; Node one, or nil.
	Nodes(ws catalog.Watch) (uint64, []*catalog.Node)
	Node(ws catalog.Watch, node string) (uint64, *catalog.Node)
	// Services returns each service name with the tags of its instances.
	Services(ws catalog.Watch) (uint64, map[string][]string)
	// ServiceInstances returns the instances of the service, healthy or not.
	ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance)
	// ServiceNodes returns them without their checks; changes of those alone wake
	// nobody.
	ServiceNodes(ws catalog.Watch, service string) (uint64, []catalog.Instance)
	// NodeServices returns the services on the node, by ID.
	NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service)
	// NodeChecks returns all checks on the node, ServiceChecks those of the
	// service's instances without those of their nodes, ChecksInState those with
	// that status, "any" for all.
	NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check)
	ServiceChecks(ws catalog.Watch, service string) (uint64, []*catalog.Check)
	ChecksInState(ws catalog.Watch, status string) (uint64, []*catalog.Check)
	// History is the present history.
	History(ws catalog.Watch) (uint64, catalog.History)
}

// storeReader reads a server's store. The end of that store wakes its watches
// too.
type storeReader struct {
	read  *state.Read
	ended <-chan struct{}
}

func (r *storeReader) watch(ws catalog.Watch) {
	if ws != nil {
		ws.Add(r.ended)
	}
}

// Nodes returns all nodes, by name.
func (r *storeReader) Nodes(ws catalog.Watch) (uint64, []*catalog.Node) {
	r.watch(ws)
	return r.read.Nodes(ws)
}

// Node returns the node of that name, in any letter case, or nil.
func (r *storeReader) Node(ws catalog.Watch, node string) (uint64, *catalog.Node) {
	r.watch(ws)
	return r.read.Node(ws, node)
}

// Services returns each service name with the tags of its instances.
func (r *storeReader) Services(ws catalog.Watch) (uint64, map[string][]string) {
	r.watch(ws)
	return r.read.Services(ws)
}

// ServiceInstances returns the instances of the service, healthy or not.
func (r *storeReader) ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	r.watch(ws)
	return r.read.ServiceInstances(ws, service)
}

// ServiceNodes returns the instances of the service without their checks.
func (r *storeReader) ServiceNodes(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	r.watch(ws)
	return r.read.ServiceNodes(ws, service)
}

// NodeServices returns the services on the node, by ID.
func (r *storeReader) NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service) {
	r.watch(ws)
	return r.read.NodeServices(ws, node)
}

// NodeChecks returns all checks on the node, its own and its services'.
func (r *storeReader) NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.NodeChecks(ws, node)
}

// ServiceChecks returns the checks of the service's instances, without those of
// their nodes.
func (r *storeReader) ServiceChecks(ws catalog.Watch, service string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.ServiceChecks(ws, service)
}

// ChecksInState returns the checks with that status; "any" for all.
func (r *storeReader) ChecksInState(ws catalog.Watch, status string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.ChecksInState(ws, status)
}

// History is the present history.
func (r *storeReader) History(ws catalog.Watch) (uint64, catalog.History) {
	r.watch(ws)
	return r.read.History(ws)
}

// Forward has another host answer a request about the catalog and reports
// whether it did; false: this host is to answer. Safe for concurrent use.
func (n *Node) Forward(w http.ResponseWriter, r *http.Request, c Consistency, effect Effect) bool {
	net, _ := n.network()
	ofCatalog := effect == Reads && !asksOfServers(r)
	switch {
	case net == nil || ofCatalog && n.readsView(r.Context(), c):
		return false
	case !ofCatalog || !n.mayReadView(r.Context(), c):
		return net.carrier.Forward(w, r, c, effect, false)
	}
	done := net.carrier.Forward(w, r, c, effect, true)
	if !done {
		*r = *r.WithContext(context.WithValue(r.Context(), unansweredKey{}, true))
	}
	return done
}

// asksOfServers reports whether a request is about the servers themselves, of
// which no view knows.
func asksOfServers(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/v1/status/") || strings.HasPrefix(r.URL.Path, "/v1/operator/")
}
