package feed_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/clustertest/memnet"
	"meibo/cluster/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	historyA = "00000000-0000-4000-8000-00000000000a"
	historyB = "00000000-0000-4000-8000-00000000000b"
	host     = "10000000-0000-4000-8000-000000000001"
)

// catalogue is a store with a log to write to.
type catalogue struct {
	t     testing.TB
	store *state.Store
	index uint64
	log   [][]byte
}

// replica is a store that has applied the first n commands.
func (c *catalogue) replica(n uint64) *catalogue {
	r := newCatalogue(c.t)
	r.catchUp(c, n)
	return r
}

// catchUp applies the commands of c up to n.
func (r *catalogue) catchUp(c *catalogue, n uint64) {
	for ; r.index < n; r.index++ {
		r.log = append(r.log, c.log[r.index])
		r.store.Apply(r.index+1, c.log[r.index])
	}
}

func newCatalogue(t testing.TB) *catalogue { return &catalogue{t: t, store: state.New()} }

// do applies a command. Refusals don't matter here.
func (c *catalogue) do(body catalog.Body) {
	c.t.Helper()
	b, err := catalog.Command{Time: time.Unix(int64(c.index), 0), Body: body}.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	c.index++
	c.log = append(c.log, b)
	c.store.Apply(c.index, b)
}

func (c *catalogue) begin(history string, base uint64) {
	c.t.Helper()
	c.do(&catalog.BeginHistory{ID: history, Base: base})
}

func nodeID(node string) string {
	h := fnv.New64a()
	h.Write([]byte(node))
	return fmt.Sprintf("20000000-0000-4000-8000-%012x", h.Sum64()>>16)
}

func register(node, service, id, status string) *catalog.Register {
	r := &catalog.Register{Node: catalog.Node{ID: nodeID(node), Node: node, Address: "192.0.2.1"}}
	if service == "" {
		r.Checks = []*catalog.Check{{CheckID: catalog.SerfHealth, Status: status}}
		return r
	}
	r.Service = &catalog.Service{ID: id, Service: service, Port: 80}
	r.Checks = []*catalog.Check{{CheckID: "c-" + id, Status: status, ServiceID: id}}
	return r
}

// snapshot is what a host knows: the sum of the updates it was told.
type snapshot struct {
	History   catalog.History
	Index     uint64
	Whole     bool
	Confirmed bool
	Nodes     map[string]catalog.NodeState
	Names     map[string]bool
	Parts     map[string]map[string]catalog.Part // by service and node
	Complete  map[string]bool
	Tombs     map[catalog.Tombstone]bool

	updates, resets int
}

func newSnapshot() *snapshot {
	return &snapshot{
		Nodes: map[string]catalog.NodeState{}, Names: map[string]bool{},
		Parts: map[string]map[string]catalog.Part{}, Complete: map[string]bool{}, Tombs: map[catalog.Tombstone]bool{},
	}
}

// take adds an update, and says what a stream may not do.
func (p *snapshot) take(u catalog.Update) error {
	p.updates++
	switch {
	case u.History.ID == p.History.ID && u.Index < p.Index:
		return fmt.Errorf("index went from %d back to %d", p.Index, u.Index)
	case u.History.ID != p.History.ID && !u.Reset:
		return fmt.Errorf("history %q came without a reset", u.History.ID)
	case !u.Reset && p.updates > 1 && u.Whole != p.Whole:
		return errors.New("whole changed without a reset")
	}
	if u.Reset {
		fresh := newSnapshot()
		fresh.updates, fresh.resets = p.updates, p.resets+1
		*p = *fresh
	}
	p.History, p.Index, p.Whole, p.Confirmed = u.History, u.Index, u.Whole, u.Confirmed
	for _, node := range u.GoneNodes {
		key := strings.ToLower(node)
		delete(p.Nodes, key)
		for _, parts := range p.Parts {
			delete(parts, key)
		}
	}
	for _, n := range u.Nodes {
		p.Nodes[strings.ToLower(n.Node.Node)] = n
	}
	for _, name := range u.Names {
		p.Names[name] = true
	}
	for _, name := range u.GoneNames {
		delete(p.Names, name)
	}
	for _, name := range u.Complete {
		p.Complete[name] = true
		delete(p.Parts, name)
	}
	for _, part := range u.Parts {
		if p.Parts[part.Service] == nil {
			p.Parts[part.Service] = map[string]catalog.Part{}
		}
		if len(part.Services) == 0 {
			delete(p.Parts[part.Service], strings.ToLower(part.Node))
			continue
		}
		p.Parts[part.Service][strings.ToLower(part.Node)] = part
	}
	for _, tomb := range u.Tombstones {
		p.Tombs[tomb] = true
	}
	return nil
}

// wanted is the snapshot that a host must have of the store: the contents of the
// names, or of all.
func wanted(r *state.Read, whole bool, names map[string]bool) *snapshot {
	p := newSnapshot()
	_, nodes := r.Nodes(nil)
	for _, n := range nodes {
		key := strings.ToLower(n.Node)
		st := catalog.NodeState{Node: n}
		_, checks := r.NodeChecks(nil, n.Node)
		_, services := r.NodeServices(nil, n.Node)
		for _, c := range checks {
			if c.ServiceID == "" {
				st.Checks = append(st.Checks, c)
			}
		}
		for _, svc := range services {
			name := strings.ToLower(svc.Service)
			p.Names[name] = true
			if svc.Address != "" && svc.Address != n.Address {
				st.Addresses = append(st.Addresses, catalog.AddressOf{Address: svc.Address, Service: svc.Service, ServiceID: svc.ID})
			}
			if !whole && !names[name] {
				continue
			}
			if p.Parts[name] == nil {
				p.Parts[name] = map[string]catalog.Part{}
			}
			part := p.Parts[name][key]
			part.Node, part.Service = n.Node, name
			part.Services = append(part.Services, svc)
			for _, c := range checks {
				if c.ServiceID == svc.ID {
					part.Checks = append(part.Checks, c)
				}
			}
			p.Parts[name][key] = part
		}
		p.Nodes[key] = st
	}
	return p
}

// details are what may lag behind: all of a check but what an answer shows. The
// store keeps the case in which a node's name was written when a service was
// registered; hosts are told the node's own.
var details = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Node" && p.Index(-2).Type().Name() == "Service" },
		cmp.Comparer(strings.EqualFold)),
	cmp.Transformer("shown", func(c *catalog.Check) string {
		return strings.ToLower(c.Node) + "/" + c.CheckID + "/" + c.Status + "/" + c.ServiceID
	}),
}

// differs says how a snapshot differs from that of the store; "" for not at all.
func (p *snapshot) differs(r *state.Read, names map[string]bool) string {
	want := wanted(r, p.Whole, names)
	got := newSnapshot()
	got.Nodes, got.Names = p.Nodes, p.Names
	for name, parts := range p.Parts {
		if len(parts) > 0 && (p.Whole || names[name]) {
			got.Parts[name] = sortedChecks(parts)
		}
	}
	for name, parts := range want.Parts {
		want.Parts[name] = sortedChecks(parts)
	}
	opts := cmp.Options{details, cmpopts.IgnoreUnexported(snapshot{})}
	return cmp.Diff(want, got, opts)
}

func sortedChecks(parts map[string]catalog.Part) map[string]catalog.Part {
	out := maps.Clone(parts)
	for k, p := range out {
		p.Checks = slices.SortedFunc(slices.Values(p.Checks), func(a, b *catalog.Check) int { return strings.Compare(a.CheckID, b.CheckID) })
		out[k] = p
	}
	return out
}

// network is one in memory, whose servers have names.
type network struct {
	*memnet.Network
	t      testing.TB
	change func(*feed.ClientConfig) // of hosts that come; nil: as they are

	mu      sync.Mutex // guards following
	servers map[string]*server
	ids     map[netip.Addr]string // of the nodes that dial
	errs    []error               // of streams, as the servers say
	dials   []time.Time
}

// lessThanAChange is a window that lets a server write no more than its host reads.
const lessThanAChange = 64

func newNetwork(t testing.TB) *network {
	n := &network{Network: memnet.New(1), t: t, servers: map[string]*server{}, ids: map[netip.Addr]string{}}
	n.DeadAfter = time.Hour // it is for the feed to notice
	return n
}

// server is a feed server on a host of its own.
type server struct {
	*feed.Server
	leader   atomic.Bool
	stop     func()
	net      *network
	at       netip.AddrPort
	host     *memnet.Host
	listener net.Listener // nil: connections are refused
	serves   sync.WaitGroup
}

// start runs a server for the store until the test or its stop.
func (n *network) start(name string, store *state.Store, change func(*feed.ServerConfig)) *server {
	n.t.Helper()
	return n.startWith(name, store, true, change)
}

// startWith says whether the server has a leader.
func (n *network) startWith(name string, store *state.Store, leader bool, change func(*feed.ServerConfig)) *server {
	n.t.Helper()
	srv := &server{net: n}
	srv.leader.Store(leader)
	cfg := feed.ServerConfig{
		Store:  store,
		Leader: func() (bool, time.Duration) { return srv.leader.Load(), 0 },
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if srv.Server, err = feed.NewServer(cfg); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Run(ctx); err != nil {
			n.t.Errorf("server %s: %v", name, err)
		}
	})
	srv.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		srv.setDown(true)
		srv.serves.Wait()
	})
	n.t.Cleanup(srv.stop)
	n.mu.Lock()
	defer n.mu.Unlock()
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(len(n.servers) + 1)})
	if former := n.servers[name]; former != nil {
		addr = former.at.Addr()
	}
	srv.at, srv.host = netip.AddrPortFrom(addr, 8300), n.Host(addr)
	n.servers[name] = srv
	srv.setDown(false)
	return srv
}

// setDown has connections to the server refused, or accepted.
func (s *server) setDown(down bool) {
	switch {
	case down && s.listener != nil:
		s.listener.Close()
		s.listener = nil
	case !down && s.listener == nil:
		l, err := s.host.Listen(context.Background(), "tcp", s.at.String())
		if err != nil {
			s.net.t.Fatal(err)
		}
		s.listener = l
		s.serves.Go(func() { s.accept(l) })
	}
}

func (s *server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.serves.Go(func() {
			err := s.Serve(context.Background(), conn, s.net.idOf(conn.RemoteAddr()))
			if err == nil {
				return
			}
			s.net.mu.Lock()
			defer s.net.mu.Unlock()
			s.net.errs = append(s.net.errs, err)
		})
	}
}

// cut ends all connections to the server.
func (s *server) cut() {
	down := s.listener == nil
	s.host = s.net.Host(s.at.Addr()) // which kills the process there
	s.listener = nil
	s.setDown(down)
}

func (n *network) idOf(addr net.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ids[addr.(*net.TCPAddr).AddrPort().Addr()]
}

// dial connects to servers as a node with the ID.
func (n *network) dial(id string) func(context.Context, string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr := netip.AddrFrom4([4]byte{10, 1, byte(len(n.ids) >> 8), byte(len(n.ids))})
	n.ids[addr] = id
	h := n.Host(addr)
	return func(ctx context.Context, name string) (net.Conn, error) {
		n.mu.Lock()
		n.dials = append(n.dials, time.Now())
		srv := n.servers[name]
		n.mu.Unlock()
		if srv == nil {
			return nil, fmt.Errorf("dial %s: no such server", name)
		}
		return h.DialContext(ctx, "tcp", srv.at.String())
	}
}

// dialled returns when servers were dialled since the last call.
func (n *network) dialled() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.dials
	n.dials = nil
	return at
}

// cut ends all connections to the server.
func (n *network) cut(name string) { n.servers[name].cut() }

// unplug has nothing arrive at the server any more, nor anything of it.
func (n *network) unplug(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.SetBoth([]netip.Addr{n.servers[name].at.Addr()}, slices.Collect(maps.Keys(n.ids)), memnet.Path{Cut: true})
}

// setDown has connections to the server refused, or accepted again.
func (n *network) setDown(name string, down bool) { n.servers[name].setDown(down) }

// failures are what servers said of streams that ended.
func (n *network) failures() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprint(n.errs)
}

func (n *network) addrs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.servers))
}

// gate is a lock that fake time doesn't wait for.
type gate chan struct{}

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

// receiver is a host that follows the feed, over as many streams as it takes.
type receiver struct {
	t      testing.TB
	client *feed.Client
	stop   func()
	slow   gate // shut: the host doesn't read

	mu       sync.Mutex
	snapshot *snapshot
	names    map[string]bool
	ended    map[string]bool
	stream   *feed.Stream
	log      []catalog.Update
	errs     []error
	changed  chan struct{}
	servers  []string // nil: all
}

// setServers says which servers the host knows to be alive.
func (r *receiver) setServers(addrs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers = addrs
}

// countAt returns how many of the hosts are with the server.
func (n *network) countAt(hosts []*receiver, addr string) (count int) {
	for _, r := range hosts {
		if at, _ := r.client.Server(); at == addr {
			count++
		}
	}
	return count
}

func (n *network) receiver(id string, names ...string) *receiver {
	r := &receiver{t: n.t, slow: make(gate, 1), snapshot: newSnapshot(), names: map[string]bool{}, ended: map[string]bool{}, changed: make(chan struct{})}
	for _, name := range names {
		r.names[name] = true
	}
	cfg := feed.ClientConfig{
		Dial: n.dial(id), Servers: func() []string {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.servers != nil {
				return r.servers
			}
			return n.addrs()
		}, NodeID: id, Datacenter: "dc1", Resume: r.resume,
	}
	if n.change != nil {
		n.change(&cfg)
	}
	r.client = feed.NewClient(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.t.Cleanup(r.stop)
	return r
}

// resume says what is known: of the names, those that were told in full.
func (r *receiver) resume() (catalog.History, uint64, bool, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var known []string
	for name := range r.names {
		if r.snapshot.Complete[name] {
			known = append(known, name)
		}
	}
	return r.snapshot.History, r.snapshot.Index, r.snapshot.Whole, known
}

func (r *receiver) run(ctx context.Context) {
	for {
		s, err := r.client.Open(ctx)
		if err != nil {
			return
		}
		r.follow(ctx, s)
		s.Close()
		if ctx.Err() != nil {
			return
		}
	}
}

func (r *receiver) follow(ctx context.Context, s *feed.Stream) {
	r.mu.Lock()
	r.stream = s
	for name := range r.names {
		if !r.snapshot.Complete[name] {
			s.Subscribe(name)
		}
	}
	r.mu.Unlock()
	for {
		func() { // while it is held, this host doesn't read
			r.slow.Lock()
			defer r.slow.Unlock()
		}()
		u, err := s.Next(ctx)
		r.mu.Lock()
		if err != nil {
			r.errs = append(r.errs, err)
			r.stream = nil
			r.mu.Unlock()
			return
		}
		if err := r.snapshot.take(u); err != nil {
			r.t.Errorf("update %d: %v", len(r.log), err)
		}
		if u.Reset {
			for name := range r.names {
				if !r.snapshot.Complete[name] {
					s.Subscribe(name)
				}
			}
		}
		r.log = append(r.log, u)
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
}

// subscribe does nothing for a name that was given up: the answer to the first
// subscription could be taken for one to the second.
func (r *receiver) subscribe(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended[name] {
		return
	}
	r.names[name] = true
	if r.stream != nil {
		r.stream.Subscribe(name)
	}
}

func (r *receiver) unsubscribe(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, name)
	r.ended[name] = true
	delete(r.snapshot.Complete, name)
	if r.stream != nil {
		r.stream.Unsubscribe(name)
	}
}

// until waits for a condition of the snapshot.
func (r *receiver) until(what string, ok func(p *snapshot) bool) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		done, changed := ok(r.snapshot), r.changed
		errs := r.errs
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("no %s within 20 s; errors of streams: %v", what, errs)
		}
	}
}

// now returns what is known at the moment, as a copy that is not written to.
func (r *receiver) now() snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.snapshot
}

// count and since return how many updates came, and those after the first n.
func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log)
}

func (r *receiver) since(n int) []catalog.Update {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log[n:])
}

// last returns the newest update.
func (r *receiver) last() catalog.Update {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.log) == 0 {
		return catalog.Update{}
	}
	return r.log[len(r.log)-1]
}

// streams returns how the streams so far have ended.
func (r *receiver) streams() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.errs)
}

// equals waits until the host is at the store's index and compares.
func (r *receiver) equals(c *catalogue) {
	r.t.Helper()
	read := c.store.Read()
	_, h := read.History(nil)
	r.until(fmt.Sprintf("index %d", h.Base+c.index), func(p *snapshot) bool {
		if p.History.ID != h.ID || p.Index < h.Base+c.index {
			return false
		}
		for name := range r.names {
			if !p.Whole && !p.Complete[name] {
				return false
			}
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := r.snapshot.differs(read, r.names); diff != "" {
		r.t.Fatalf("the host's snapshot at index %d differs from the store's (-want +got):\n%s", r.snapshot.Index, diff)
	}
}

// local follows the feed in the server's process.
func (n *network) local(addr string) *receiver {
	r := &receiver{t: n.t, slow: make(gate, 1), snapshot: newSnapshot(), names: map[string]bool{}, ended: map[string]bool{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l := n.servers[addr].Local(r.resume)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer l.Close()
		for {
			u, err := l.Next(ctx)
			if err != nil {
				return
			}
			r.mu.Lock()
			if err := r.snapshot.take(u); err != nil {
				r.t.Errorf("local: %v", err)
			}
			close(r.changed)
			r.changed = make(chan struct{})
			r.mu.Unlock()
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.t.Cleanup(r.stop)
	return r
}
