package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Defaults of Config.
const (
	// DefaultMaxFlights bounds questions being resolved at once.
	DefaultMaxFlights = 4096
	// DefaultMaxWaiters bounds clients that wait, for all questions together; half
	// of them may wait for one. At some 500 bytes each that is 8 MiB at worst.
	DefaultMaxWaiters = 16384
	// DefaultDeadline is below the 5 s after which glibc gives up on a server.
	DefaultDeadline = 4500 * time.Millisecond
	// DefaultStaleWait is how long a client waits before it is given an expired
	// answer; RFC 8767 section 5 suggests 1.8 s, which is more than many
	// programs wait at all. With the rest of its way an answer takes a second.
	DefaultStaleWait = 980 * time.Millisecond
	// DefaultMaxTTL is the longest life of an answer (RFC 8767 section 4 allows
	// seven days; a day is what Unbound and Knot keep).
	DefaultMaxTTL = 24 * time.Hour
	// DefaultNegativeMaxTTL keeps a name that was just created from being denied
	// for long; RFC 2308 section 5 would allow three hours.
	DefaultNegativeMaxTTL = 300 * time.Second

	// staleTTL is the TTL of expired answers (RFC 8767 section 4).
	staleTTL = 30
	// staleRecheck is how long after a failure expired answers are given at once,
	// without asking again (RFC 8767 section 5).
	staleRecheck = 30 * time.Second
	// maxChase is how deep a Lookup within a Lookup may go.
	maxChase = 8
)

// Config of a Resolver. Zero values mean the defaults above.
type Config struct {
	Cache *cache.Cache // required
	Table Table
	Now   func() time.Duration // nil: cache.BootTime
	// Logger gets panics and nothing per query. Nil: discard.
	Logger                 *slog.Logger
	MaxFlights, MaxWaiters int
	Deadline, StaleWait    time.Duration
	// MinTTL lengthens the life of positive answers from upstream, except TTL 0;
	// the TTLs shown end at 1. MaxTTL and NegativeMaxTTL shorten lives.
	// NegativeMaxTTL below 0: denials are not kept.
	MinTTL, MaxTTL, NegativeMaxTTL time.Duration
	// NegativeTTL is the life of denials without an SOA, which RFC 2308 section 5 would
	// not have kept; 0: they aren't.
	NegativeTTL time.Duration
	// MaxClientTTL bounds the TTLs that are shown of forwarded answers; 0: nothing does.
	MaxClientTTL time.Duration
	// Version and ServerID answer version.bind and id.server in class CHAOS;
	// empty ones are refused.
	Version, ServerID string
}

// Resolver answers questions. Its methods are safe for concurrent use.
type Resolver struct {
	cfg       Config
	now       func() time.Duration
	log       *slog.Logger
	table     atomic.Pointer[table]
	clients   atomic.Pointer[[]netip.Prefix] // who may have questions forwarded; nil: everybody
	filter    atomic.Pointer[Filter]         // nil: nothing is filtered
	flights   flightTable
	exchanges exchangeTable
	failures  *failureMemory
	stats     stats

	ctx    context.Context // ends with Run; flights live under it
	cancel context.CancelCauseFunc

	mu     sync.Mutex // guards closed against wg.Add after wg.Wait
	closed bool
	wg     sync.WaitGroup

	hot  chan hotAnswer // those that have just become so
	work chan func()    // to goroutines that have nothing to do
	idle atomic.Int32   // those

	rebindSaid atomic.Int64 // when the log last had a dropped answer, as Config.Now has it
}

// New validates cfg and returns a Resolver that answers at once; nothing is
// started until a question needs a flight.
func New(cfg Config) (*Resolver, error) {
	if cfg.Cache == nil {
		return nil, errNoCache
	}
	if cfg.MaxFlights < 0 || cfg.MaxWaiters < 0 || cfg.Deadline < 0 || cfg.MinTTL < 0 || cfg.MaxTTL < 0 || cfg.NegativeTTL < 0 || cfg.MaxClientTTL < 0 {
		return nil, fmt.Errorf("resolver: limits must not be negative")
	}
	cfg.setDefaults()
	if cfg.MinTTL > cfg.MaxTTL {
		return nil, fmt.Errorf("resolver: min_ttl %v is above max_ttl %v", cfg.MinTTL, cfg.MaxTTL)
	}
	t, err := compile(cfg.Table)
	if err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	r := &Resolver{cfg: cfg, now: cfg.Now, log: cfg.Logger, failures: newFailureMemory(), work: make(chan func()), hot: make(chan hotAnswer, 256)}
	cfg.Cache.OnHot(hotHits, r.trackHot)
	r.flights.init()
	r.exchanges.init()
	r.table.Store(t)
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r, nil
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Deadline, DefaultDeadline)
	def(&c.StaleWait, DefaultStaleWait)
	def(&c.MaxTTL, DefaultMaxTTL)
	def(&c.NegativeMaxTTL, DefaultNegativeMaxTTL)
	c.NegativeMaxTTL = max(c.NegativeMaxTTL, 0)
	if c.MaxFlights == 0 {
		c.MaxFlights = DefaultMaxFlights
	}
	if c.MaxWaiters == 0 {
		c.MaxWaiters = DefaultMaxWaiters
	}
	if c.Now == nil {
		c.Now = cache.BootTime
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// SetClients says from which networks questions are forwarded, and answered from
// what was; this host's own always are. Others get REFUSED with Extended Error 18 for
// such names. nil, as before the first call: from everywhere.
func (r *Resolver) SetClients(networks []netip.Prefix) {
	if networks == nil {
		r.clients.Store(nil)
		return
	}
	r.clients.Store(&networks)
}

// mayRecurse reports whether q's client may have its question forwarded. A question
// of our own has no client; who asks from the address that was asked is this host.
func (r *Resolver) mayRecurse(q *wire.Query) bool {
	networks := r.clients.Load()
	if networks == nil || !q.Client.IsValid() || q.Client.Addr() == q.Local {
		return true
	}
	client := q.Client.Addr().Unmap().WithZone("")
	if client.IsLoopback() {
		return true
	}
	for _, n := range *networks {
		if n.Contains(client) {
			return true
		}
	}
	return false
}

// Run owns the flights and refreshes the answers that are asked for most: it blocks until ctx ends, then ends every flight, whose
// waiters are answered SERVFAIL, and returns when the last has ended. It returns
// nil. After it, questions that need a flight are answered SERVFAIL.
func (r *Resolver) Run(ctx context.Context) error {
	r.refreshHot(ctx)
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel(&Failure{EDE: wire.EDENotReady, Text: "the resolver is stopping"})
	r.wg.Wait()
	return nil
}

// start runs f in a goroutine that Run waits for; false: the resolver has ended.
func (r *Resolver) start(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Add(1)
	select {
	case r.work <- f:
	default:
		r.wg.Add(1)
		go r.labour(f)
	}
	return true
}

// maxIdle is how many goroutines wait for the next flight: a new one would have to
// grow its stack first, which costs as much as all else that we do for a question.
const maxIdle = 256

// labour runs f, and then what else there is to do.
func (r *Resolver) labour(f func()) {
	defer r.wg.Done()
	for {
		r.guarded(f)
		if r.idle.Add(1) > maxIdle {
			r.idle.Add(-1)
			return
		}
		select {
		case f = <-r.work:
			r.idle.Add(-1)
		case <-r.ctx.Done():
			return
		}
	}
}

// guarded runs f, whose panic must not end the daemon, and tells Run.
func (r *Resolver) guarded(f func()) {
	defer r.wg.Done()
	defer func() {
		if p := recover(); p != nil {
			r.panicked(nil, p)
		}
	}()
	f()
}
