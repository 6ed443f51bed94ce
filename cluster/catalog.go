package cluster

import (
	"context"
	"errors"
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
)

// ReadInfo says how fresh a Reader is.
type ReadInfo struct {
	KnownLeader bool
	LastContact time.Duration // since the last word of a leader; 0 on the leader
}

// Read returns the present state of the catalog. It waits for a leader where
// the consistency needs one, at most 7 s; then it is ErrNoLeader, as it is for
// any read on a host that knows no catalog at all.
func (n *Node) Read(ctx context.Context, c Consistency) (*Reader, ReadInfo, error) {
	if c == Stale {
		if s := n.known.Load(); s != nil {
			return s.read(), n.readInfo(s), nil
		}
	}
	s, err := n.leading(ctx)
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

func (n *Node) readInfo(s *server) ReadInfo {
	l, _ := s.replica.Leadership()
	info := ReadInfo{KnownLeader: l.LeaderID != ""}
	if at := n.view.Confirmed(); !l.Leading && !at.IsZero() {
		info.LastContact = time.Since(at)
	}
	return info
}

// Apply carries out a command and returns its index as clients see it, once the
// catalog here and lookups on this host show it. A *catalog.Error is the state
// machine's refusal; ErrNoLeader means that it did not happen; of any other
// error the outcome is unknown. What body points at is not modified.
func (n *Node) Apply(ctx context.Context, body catalog.Body) (uint64, error) {
	index, err := n.write(ctx, body)
	if err != nil {
		return 0, err
	}
	if err := n.view.Wait(ctx, index); err != nil {
		// It did happen; lookups will show it as soon as they can.
		n.logger.Warn("a write does not show in lookups yet", "index", index, "err", err)
	}
	return index, nil
}

// write is Apply without the wait for lookups.
func (n *Node) write(ctx context.Context, body catalog.Body) (uint64, error) {
	s, err := n.leading(ctx)
	if err != nil {
		return 0, err
	}
	index, err := s.apply(ctx, n.nextRequest(), body)
	return index, noLeader(err)
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

// read returns the present state. A watch on one whose server has ended waits
// for another server.
func (s *server) read() *Reader {
	_, _, changed := s.node.running()
	select {
	case <-s.ended:
		return &Reader{s.store.Read(), changed}
	default:
		return &Reader{s.store.Read(), s.ended}
	}
}

// Reader is one unchanging state of the catalog. Each method returns the index
// of its own result and adds to ws what is closed when the result may have
// changed, the end of the store it comes from included.
type Reader struct {
	read  *state.Read
	ended <-chan struct{}
}

func (r *Reader) watch(ws catalog.Watch) {
	if ws != nil {
		ws.Add(r.ended)
	}
}

// Nodes returns all nodes, by name.
func (r *Reader) Nodes(ws catalog.Watch) (uint64, []*catalog.Node) {
	r.watch(ws)
	return r.read.Nodes(ws)
}

// Node returns the node of that name, in any letter case, or nil.
func (r *Reader) Node(ws catalog.Watch, node string) (uint64, *catalog.Node) {
	r.watch(ws)
	return r.read.Node(ws, node)
}

// Services returns each service name with the tags of its instances.
func (r *Reader) Services(ws catalog.Watch) (uint64, map[string][]string) {
	r.watch(ws)
	return r.read.Services(ws)
}

// ServiceInstances returns the instances of the service, healthy or not.
func (r *Reader) ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	r.watch(ws)
	return r.read.ServiceInstances(ws, service)
}

// NodeServices returns the services on the node, by ID.
func (r *Reader) NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service) {
	r.watch(ws)
	return r.read.NodeServices(ws, node)
}

// NodeChecks returns all checks on the node, its own and its services'.
func (r *Reader) NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.NodeChecks(ws, node)
}

// ServiceChecks returns the checks of the service's instances, without those of
// their nodes.
func (r *Reader) ServiceChecks(ws catalog.Watch, service string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.ServiceChecks(ws, service)
}

// ChecksInState returns the checks with that status; "any" for all.
func (r *Reader) ChecksInState(ws catalog.Watch, status string) (uint64, []*catalog.Check) {
	r.watch(ws)
	return r.read.ChecksInState(ws, status)
}

// History is the present history.
func (r *Reader) History(ws catalog.Watch) (uint64, catalog.History) {
	r.watch(ws)
	return r.read.History(ws)
}
