// Package forwarder asks other name servers.
//
// Routes say by suffix which servers answer what. A question goes to one server
// of its route, chosen by mode, health and measured latency; when the answer does
// not come in the time it should, it goes to the next one too while the first is
// still listened to, so that a dead server costs a fraction of a second once. A
// server that loses three questions in a row is dead until a probe in the
// background finds it alive; clients' questions are not used for that.
//
// Questions leave from one of 256 sockets for each family of addresses, each on a
// port of the kernel's random choice, for a hundred questions or ten seconds. Those
// that are asked in the same moment leave together, from one of them. A
// reply is taken only from the address and port the question went to, on the
// question's socket, with its random ID and its question (RFC 5452). Anything else
// is counted, and the wait goes on; after twenty of them the question is asked over
// TCP. Connections are kept and carry many questions at once, over TLS where the route
// says so.
//
// The package keeps no answers, and knows nothing of zones, clients or catalogs.
package forwarder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meibo/resolver"
	"meibo/resolver/wire"
)

// DefaultTimeout bounds one exchange: an answer that comes later finds a client
// that has given up (glibc waits 5 s).
const DefaultTimeout = 4 * time.Second

// Mode says in which order the servers of a route are asked.
type Mode string

const (
	// Fastest asks the server with the lowest smoothed latency first; the default.
	Fastest Mode = "fastest"
	// Strict asks in the order given (Consul's recursor_strategy "sequential").
	Strict Mode = "strict"
	// All asks every server at once and takes the first good answer.
	All Mode = "all"
	// Random asks in random order.
	Random Mode = "random"
)

// Route says which servers answer the names below a suffix.
type Route struct {
	Suffix  wire.Name // wire.Root: everything without a longer route
	Servers []netip.AddrPort
	// Fallback are asked when none of Servers is alive or answers.
	Fallback []netip.AddrPort
	Mode     Mode // empty: Fastest
	TLS      *TLS // nil: UDP, and TCP where it must be
	// TrustAD passes on the AD bit of these servers: they validate, and the way
	// to them can be trusted.
	TrustAD bool
	// Timeout bounds the whole exchange; 0: DefaultTimeout.
	Timeout time.Duration
	// Part marks a part of the default route: zones of this host at the same suffix
	// go before it, as they do before that.
	Part bool
}

func (r *Route) equal(o *Route) bool {
	return r.Suffix == o.Suffix && slices.Equal(r.Servers, o.Servers) && slices.Equal(r.Fallback, o.Fallback) &&
		r.Mode == o.Mode && r.TLS.key() == o.TLS.key() &&
		r.TrustAD == o.TrustAD && r.Timeout == o.Timeout && r.Part == o.Part
}

// Config of a Forwarder.
type Config struct {
	Routes []Route
	// Self are the addresses this daemon answers on; a question sent there would
	// come back, so they are left out of routes. An unspecified address stands
	// for every address of this host.
	Self   []netip.AddrPort
	Logger *slog.Logger // nil: discard
}

// Forwarder holds the routes and what is known of their servers. It is safe for
// concurrent use.
type Forwarder struct {
	log  *slog.Logger
	uid  string // distinguishes our loop probes from anybody else's
	wake chan struct{}
	wg   sync.WaitGroup // attempts that outlive their exchange

	sockets *sockets
	ears    sync.Pool // of *ear

	mu      sync.Mutex // guards following
	self    []netip.AddrPort
	routes  map[wire.Name]*route
	servers map[serverKey]*server
	streams map[*stream]struct{}
	ended   bool
}

// serverKey tells servers apart: one address may be asked in several ways.
type serverKey struct {
	addr netip.AddrPort
	tls  string // TLS.key
}

// New validates cfg. It opens nothing and starts nothing; replies are heard while
// Run runs.
func New(cfg Config) (*Forwarder, error) {
	var uid [8]byte
	rand.Read(uid[:])
	f := &Forwarder{
		log: cfg.Logger, self: cfg.Self, uid: hex.EncodeToString(uid[:]), wake: make(chan struct{}, 1),
		sockets: newSockets(),
		routes:  map[wire.Name]*route{}, servers: map[serverKey]*server{},
		streams: map[*stream]struct{}{},
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if err := f.Update(cfg.Routes); err != nil {
		return nil, err
	}
	return f, nil
}

// SetSelf replaces Config.Self, for a daemon that learns its port by binding. It
// counts from the next Update on.
func (f *Forwarder) SetSelf(self []netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.self = self
}

// Check says what Update would refuse.
func (f *Forwarder) Check(routes []Route) error {
	_, err := f.normalizeAll(routes)
	return err
}

// normalizeAll checks the routes and returns them by suffix, in their final form.
func (f *Forwarder) normalizeAll(routes []Route) (map[wire.Name]Route, error) {
	f.mu.Lock()
	self := f.self
	f.mu.Unlock()
	out := make(map[wire.Name]Route, len(routes))
	for _, r := range routes {
		r, err := f.normalize(r, self)
		if err != nil {
			return nil, err
		}
		if _, twice := out[r.Suffix]; twice {
			return nil, fmt.Errorf("forwarder: two routes for %s; put their servers into one", r.Suffix)
		}
		out[r.Suffix] = r
	}
	return out, nil
}

// Update replaces the routes. A route that stays as it was keeps its counter and
// with it its cached answers; the counter of one that changed or went is bumped.
// What is known of servers is kept. On an error nothing is changed.
func (f *Forwarder) Update(routes []Route) error {
	next, err := f.normalizeAll(routes)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.routes
	f.routes = make(map[wire.Name]*route, len(next))
	used := map[serverKey]*server{}
	var bumped []*atomic.Uint64
	for suffix, cfg := range next {
		was := old[suffix]
		if was != nil && !was.cfg.equal(&cfg) {
			bumped = append(bumped, was.counter)
			was = nil
		}
		if was == nil {
			was = &route{cfg: cfg, f: f, counter: new(atomic.Uint64), name: routeName(suffix)}
		}
		fresh := was.servers == nil
		for i, a := range slices.Concat(cfg.Servers, cfg.Fallback) {
			k := serverKey{a, cfg.TLS.key()}
			if used[k] == nil {
				if used[k] = f.servers[k]; used[k] == nil {
					used[k] = newServer(f, a, cfg.TLS)
				}
			}
			if fresh {
				was.servers = append(was.servers, used[k])
				was.first = min(i+1, len(cfg.Servers))
			}
		}
		f.routes[suffix] = was
	}
	for suffix, r := range old {
		if f.routes[suffix] == nil {
			bumped = append(bumped, r.counter)
		}
	}
	f.servers = used
	for _, c := range bumped { // after the new state can be seen
		c.Add(1)
	}
	f.nudge()
	return nil
}

// normalize checks r, fills its defaults and leaves out our own addresses.
func (f *Forwarder) normalize(r Route, self []netip.AddrPort) (Route, error) {
	if r.Suffix == "" {
		return r, fmt.Errorf("forwarder: a route without a suffix (the root is %q)", ".")
	}
	r.Suffix = r.Suffix.Lower()
	switch r.Mode {
	case "":
		r.Mode = Fastest
	case Fastest, Strict, All, Random:
	default:
		return r, fmt.Errorf("forwarder: route %s: unknown mode %q; use fastest, strict, all or random", r.Suffix, r.Mode)
	}
	if r.Timeout < 0 {
		return r, fmt.Errorf("forwarder: route %s: timeout %v is negative", r.Suffix, r.Timeout)
	}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.TLS != nil {
		if err := r.TLS.check(); err != nil {
			return r, fmt.Errorf("forwarder: route %s: %w", r.Suffix, err)
		}
	}
	var err error
	if r.Servers, err = f.others(r.Suffix, r.Servers, self, nil); err != nil {
		return r, err
	}
	if r.Fallback, err = f.others(r.Suffix, r.Fallback, self, r.Servers); err != nil {
		return r, err
	}
	if len(r.Servers) == 0 {
		r.Servers, r.Fallback = r.Fallback, nil
	}
	if len(r.Servers) == 0 {
		return r, fmt.Errorf("forwarder: route %s has no server to ask (addresses of this daemon don't count)", r.Suffix)
	}
	return r, nil
}

// others leaves out our own addresses, and those that are named twice.
func (f *Forwarder) others(suffix wire.Name, addrs, self, named []netip.AddrPort) ([]netip.AddrPort, error) {
	var servers []netip.AddrPort
	for _, a := range addrs {
		if !a.IsValid() || a.Port() == 0 {
			return nil, fmt.Errorf("forwarder: route %s: %v is no address with a port", suffix, a)
		}
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if isSelf(a, self) {
			f.log.Warn("route leads to this daemon itself, server left out", "zone", suffix.String(), "upstream", a.String())
			continue
		}
		if !slices.Contains(servers, a) && !slices.Contains(named, a) {
			servers = append(servers, a)
		}
	}
	return servers, nil
}

func routeName(suffix wire.Name) string {
	if suffix == wire.Root {
		return "default route"
	}
	return "route " + strings.TrimSuffix(suffix.String(), ".")
}

// Mounts are the routes for the resolver's table, and the zone by which loops are
// found. They are those of the last Update.
func (f *Forwarder) Mounts() []resolver.Mount {
	f.mu.Lock()
	defer f.mu.Unlock()
	ms := []resolver.Mount{{Suffix: loopSuffix, Rank: resolver.RankOwn, Zone: loopZone{f}, Name: "loop detection"}}
	for suffix, r := range f.routes {
		rank := resolver.RankRoute
		if suffix == wire.Root || r.cfg.Part {
			rank = resolver.RankDefault
		}
		ms = append(ms, resolver.Mount{Suffix: suffix, Rank: rank, Upstream: r, Route: r.counter, Name: r.name})
	}
	slices.SortFunc(ms, func(a, b resolver.Mount) int { return strings.Compare(string(a.Suffix), string(b.Suffix)) })
	return ms
}

// nudge wakes the prober.
func (f *Forwarder) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// snapshot lists the servers of all routes, ordered by address.
func (f *Forwarder) snapshot() []*server {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*server, 0, len(f.servers))
	for _, s := range f.servers {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *server) int { return a.addr.Compare(b.addr) })
	return out
}

// Run hears what servers reply, and probes those that are dead, little known or
// never checked for a loop. It blocks until ctx ends and returns nil when every
// socket is closed, at most some hundred milliseconds later.
func (f *Forwarder) Run(ctx context.Context) error {
	hearing, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { f.sockets.run(hearing) })
	f.probeLoop(ctx)
	f.endStreams()
	f.wg.Wait()
	end()
	wg.Wait()
	return nil
}
