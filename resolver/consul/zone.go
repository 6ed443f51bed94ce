// Package consul answers names below the domain of the catalog (".consul"):
// services, nodes, encoded addresses, the zone's own records, and the PTR
// records of addresses that the catalog knows. The grammar and the shape of
// each answer are Consul's.
//
// A question is taken apart (name.go), its subject is looked up in the newest
// state of the catalog (zone.go), and an answer is built from that one state
// (build.go). With the answer go the counters that it depends on, read by the
// rule that makes it droppable in time: load the state, take the counters from
// it, read their values, load the state again; if it is another one, start
// over. A cached answer can so be dropped too early, but never be served late.
//
// What can be said at once is said on the receive loop. Names whose contents
// are still to come, names to be followed elsewhere, and sets of more than 64
// instances are left to a flight.
//
// The package knows the catalog by its vocabulary and the interfaces it
// declares (source.go). It must not know how a state comes to be, nor sockets.
package consul

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"meibo/cache"
	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/wire"
)

const (
	// maxInPlace is the most instances that are built into an answer between
	// two packets; more would hold up the receive loop.
	maxInPlace = 64
	// maxWait bounds how long a question waits for contents that are not here:
	// a stub resolver's patience is seconds, and it asks again.
	maxWait = 300 * time.Millisecond
	// maxNeighbour bounds how long other hosts are asked: with maxWait it stays
	// well below what a client waits before it asks again (glibc: 5 s).
	maxNeighbour = time.Second
	// maxRestarts bounds the looks at a state that is replaced meanwhile; the
	// answer is then good now, and not kept.
	maxRestarts = 16
	// sourceView is what answers from here are marked with.
	sourceView = "view"
)

// Zone answers below the domain and the alternative domain. It is safe for
// concurrent use.
type Zone struct {
	load   func() State
	want   func(name string) <-chan struct{}
	chase  Chaser
	moved  func()
	now    func() time.Time
	logger *slog.Logger
	// neighbour asks other hosts; nil: nobody is asked.
	neighbour func(ctx context.Context, service string) bool
	stats     stats
	// vain is the value of the epoch, plus 1, at which the servers were last
	// waited for in vain while none confirmed the state. Until it moves others
	// that have older contents don't wait.
	vain atomic.Uint64

	settings atomic.Pointer[settings]
}

// New checks the options and makes a zone. It starts nothing.
func New(o Options) (*Zone, error) {
	if o.State == nil || o.Want == nil || o.Moved == nil {
		return nil, errors.New("consul zone: State, Want and Moved are required")
	}
	s, err := compile(o.Config)
	if err != nil {
		return nil, err
	}
	z := &Zone{load: o.State, want: o.Want, chase: o.Chase, moved: o.Moved, now: o.Now, logger: o.Logger, neighbour: o.Neighbour}
	if z.now == nil {
		z.now = time.Now
	}
	if z.logger == nil {
		z.logger = slog.New(slog.DiscardHandler)
	}
	z.settings.Store(s)
	return z, nil
}

// SetConfig takes a new configuration for all answers from now on, cached ones
// included. After a change of the domains the mounts must be taken anew.
func (z *Zone) SetConfig(c Config) error {
	s, err := compile(c)
	if err != nil {
		return err
	}
	z.settings.Store(s)
	z.moved()
	return nil
}

// Mounts returns where the zone belongs in a resolver's table: at its domains
// and at the reverse zones. Further suffixes below in-addr.arpa and ip6.arpa
// are those that other zones have mounts at: the catalog is asked first there.
func (z *Zone) Mounts(reverseZones ...wire.Name) []resolver.Mount {
	var mounts []resolver.Mount
	add := func(suffix wire.Name, zone resolver.Zone) {
		mounts = append(mounts, resolver.Mount{
			Suffix: suffix, Rank: resolver.RankOwn, Zone: zone, Name: "catalog " + suffix.String(),
		})
	}
	for _, d := range z.settings.Load().domains {
		add(d.lower, z)
	}
	add("\x07in-addr\x04arpa\x00", reverse{z})
	add("\x03ip6\x04arpa\x00", reverse{z})
	for _, suffix := range reverseZones {
		add(suffix, reverse{z})
	}
	return mounts
}

// Answer implements resolver.Zone.
func (z *Zone) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	s := z.subjectOf(q)
	switch {
	case s.outside:
		return resolver.Result{}, resolver.NotMine
	case s.isWaiting() || len(s.instances) > maxInPlace:
		return resolver.Result{}, resolver.Later
	}
	b := z.newBuilder(q, s)
	b.build()
	if b.needsChase && z.chase != nil {
		return resolver.Result{}, resolver.Later
	}
	return b.result(), resolver.Answered
}

// Resolve implements resolver.Zone.
func (z *Zone) Resolve(ctx context.Context, q *wire.Query) (resolver.Result, error) {
	s := z.subjectOf(q)
	if s.isWaiting() {
		s = z.wait(ctx, q, s)
	}
	if s.outside {
		return resolver.Result{}, resolver.ErrNotMine
	}
	b := z.newBuilder(q, s)
	if s.known == catalog.NotYet && s.exists && !s.older {
		z.stats.unknown.Add(1)
		b.fail(wire.EDENoReachable, "the servers have not told about "+s.name+" yet")
		return b.result(), nil
	}
	if z.chase != nil {
		b.ctx, b.chase = ctx, z.chase
	}
	b.build()
	return b.result(), nil
}

// wait has the servers asked for a service's contents, and waits for them for a
// short while. If they don't come, and there are none of before, neighbours are
// asked (VIEWS rule 11). It returns what is known then.
func (z *Zone) wait(ctx context.Context, q *wire.Query, s subject) subject {
	patience := maxWait
	if s.older && z.vain.Load() == s.deps[1].Value+1 {
		patience = 0
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-z.want(s.name):
	case <-ctx.Done():
	case <-timer.C:
		if !s.state.Fresh() {
			z.vain.Store(s.deps[1].Value + 1)
		}
	}
	name := s.name
	if s = z.subjectOf(q); s.known != catalog.NotYet || !s.exists || s.older || z.neighbour == nil {
		return s
	}
	z.stats.neighbour.Add(1)
	ctx, cancel := context.WithTimeout(ctx, maxNeighbour)
	defer cancel()
	z.neighbour(ctx, name)
	return z.subjectOf(q)
}

// subject is what a question is about, as one state of the catalog has it.
type subject struct {
	question
	settings *settings
	state    State
	domain   *domain // that was asked
	outside  bool    // the name is in none of the domains

	known     catalog.Known
	instances []catalog.Instance
	node      *catalog.Node
	exists    bool // the name does, whether or not its contents are here
	older     bool // the instances are those of before; known is NotYet

	deps [2]cache.Dep
	any  cache.Dep // in place of deps[0] when the answer takes in other names
	// passing is set when the state was replaced again and again under the
	// look: what was seen is right, but must not be kept.
	passing bool
}

// isWaiting reports whether the contents are not here yet and may come any
// moment: of a name that exists, or of any while others are about to be heard.
func (s *subject) isWaiting() bool {
	return s.known == catalog.NotYet && (s.exists || s.state.Expecting())
}

// subjectOf finds the subject of q with its counters, by VIEWS rule 2.
func (z *Zone) subjectOf(q *wire.Query) subject {
	for range maxRestarts {
		s, steady := z.glance(q)
		if steady {
			return s
		}
	}
	s, steady := z.glance(q)
	s.passing = !steady
	return s
}

// glance finds the subject once; steady is false when state or settings were
// replaced meanwhile.
func (z *Zone) glance(q *wire.Query) (s subject, steady bool) {
	s.settings, s.state = z.settings.Load(), z.load()
	s.known = catalog.Present
	name := wire.Name(q.Name())
	var rest wire.Name
	s.domain, rest = s.settings.domainOf(name)
	if s.domain == nil {
		s.outside = true
		return s, true
	}
	s.question = s.settings.parse(rest.Labels())
	counter := s.find(q.Type)
	if counter != nil {
		s.deps[0] = dependOn(counter)
	}
	s.any = dependOn(s.state.Any())
	s.deps[1] = dependOn(s.state.Epoch())
	return s, z.load() == s.state && z.settings.Load() == s.settings
}

// dependOn reads a counter's value.
func dependOn(counter *atomic.Uint64) cache.Dep {
	return cache.Dep{Counter: counter, Value: counter.Load()}
}

// find looks the question up in the state and returns the counter that the
// answer depends on besides the epoch; nil when it depends on nothing else.
func (s *subject) find(qtype wire.Type) (counter *atomic.Uint64) {
	switch s.kind {
	case apex:
		if qtype != wire.TypeSOA && qtype != wire.TypeNS {
			return nil
		}
		// The zone's servers are the instances of the service "consul". If
		// they aren't known the zone is answered without them.
		s.instances, counter, s.known = s.state.Service(catalog.ConsulService)
		if s.known != catalog.Present {
			s.instances, _ = s.state.Older(catalog.ConsulService)
			s.known = catalog.Present
			return s.state.Any()
		}
	case services:
		s.instances, counter, s.known = s.state.Service(s.name)
		if s.exists = counter != nil; s.known == catalog.NotYet && s.exists {
			s.instances, s.older = s.state.Older(s.name)
			return counter
		}
	case nodes:
		counter = s.findNode()
	default:
		return nil
	}
	if s.known != catalog.Present || counter == nil {
		return s.state.Names()
	}
	return counter
}

// findNode looks for a node by name, then by the beginning of its ID.
func (s *subject) findNode() (counter *atomic.Uint64) {
	s.node, counter, s.known = s.state.Node(s.name)
	if s.known != catalog.Absent || len(s.name) < 2 || strings.Trim(s.name, "0123456789abcdef-") != "" {
		return counter
	}
	node, ok := s.state.NodeByIDPrefix(s.name)
	if !ok {
		return nil
	}
	s.node, s.known = node, catalog.Present
	// Another node may come to have the same beginning.
	return s.state.Any()
}
