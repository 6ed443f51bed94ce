package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// Defaults of Config.
const (
	DefaultCheckUpdateInterval = 5 * time.Minute
	DefaultMaxServices         = 10_000
	DefaultMaxChecks           = 20_000
)

// Config is what an Agent is made from.
type Config struct {
	// DataDir is where definitions and states are kept; empty keeps nothing.
	DataDir string
	// Node is this host's node record: ID, name, address, datacenter, tagged
	// addresses and metadata. The name is required.
	Node catalog.Node
	// Catalog is made equal to what the agent holds; nil: to nothing.
	Catalog Catalog
	// OnChange is called after every change of Own, without locks held, possibly
	// by several goroutines at once: read Own under the lock that orders what is
	// made of it. Writes return after it has. It must not write to the agent.
	// New calls it too.
	OnChange func(Change)
	// Services and Checks are those that files define.
	Services []definition.Service
	Checks   []definition.Check
	// Absent are the IDs of services that files define too, but with a fault, so that
	// they are not among Services: what DataDir keeps of their checks waits for them.
	Absent []string

	// EnableScriptChecks lets any check run programs, EnableLocalScriptChecks
	// those of files alone.
	EnableScriptChecks      bool
	EnableLocalScriptChecks bool
	// CheckUpdateInterval is about how long a change of a check's output alone
	// may take to the catalog; 0 = DefaultCheckUpdateInterval, negative = no time.
	CheckUpdateInterval time.Duration
	// CheckOutputMaxSize bounds the output kept of a check, in bytes; 0 =
	// check.DefaultOutputSize. A definition may ask for less.
	CheckOutputMaxSize int
	// DiscardCheckOutput keeps none.
	DiscardCheckOutput bool

	MaxServices int // 0 = DefaultMaxServices
	MaxChecks   int // 0 = DefaultMaxChecks
	// MaxStarting is how many checks of one kind begin their runs at once; 0 =
	// check.DefaultSlots.
	MaxStarting int

	// CheckTLS is what checks over TLS show and trust; nil: no certificate, the
	// system's CAs.
	CheckTLS *check.TLS

	// Members is how many nodes the datacenter has, so that a large one is
	// asked less often; nil = 1. It must not block.
	Members func() int
	// Now is boot time; nil = the real clock. For tests.
	Now    func() time.Duration
	Logger *slog.Logger // nil discards
}

// Change says what a write or a check touched.
type Change struct {
	// Services are the names of the services touched.
	Services []string
	// Node is set when it bears on the node, and so on all its services.
	Node bool
}

// Record is the agent's node with all its services and checks. It and what it
// points at are shared and never modified.
type Record struct {
	Node     *catalog.Node
	Services []*catalog.Service // ordered by ID
	// Checks holds the node's checks and those of its services, ordered by ID.
	Checks []*catalog.Check
}

// Agent is this host's own state. Its methods may be called concurrently.
type Agent struct {
	cfg    Config
	logger *slog.Logger
	files  *store
	slots  *check.Slots
	own    atomic.Pointer[Record]
	sync   *syncer
	counts counts

	// define lets one change of definitions at a time through, so that files
	// and memory change in the same order. It is held across writes of files;
	// callbacks are called without it.
	define   sync.Mutex
	restored bool // guarded by define: what DataDir holds was read
	// Guarded by define: definitions of files that are not used, and checks of files
	// whose service DataDir may yet name.
	leftOut []Unfit
	pending []definition.Check
	// waiting are kept checks, by file, of services that files define with a fault.
	waiting []string

	mu       sync.Mutex // guards following; held for moments, never across I/O
	services map[string]*service
	checks   map[string]*checkState
	aliases  map[string]chan struct{} // alias checks, to be told of changes
	// What the catalog has not heard of yet, besides what is dirty itself.
	goneServices, goneChecks map[string]bool
	nodeDirty                dirtyFlag
	version                  uint64 // the last one given to anything dirty
	settled                  uint64 // up to which the catalog was seen to have everything
	news                     bool   // something was marked since the last wake

	changed chan struct{}   // closed at the next change
	turned  chan struct{}   // closed at the end of the next sync
	running context.Context // that of Run; nil when it isn't running
	started sync.WaitGroup  // goroutines of the running Run
	discard bool            // keep no output of checks
}

// service is one registered service.
type service struct {
	def    definition.Service // Checks are those of the last registration
	source Source
	record *catalog.Service // replaced, never modified
	dirty  dirtyFlag
}

// New checks cfg, takes in the definitions of files, and brings back what
// DataDir holds. It starts nothing. A definition that is unfit is left out, and
// all others are used: see LeftOut. A DataDir that cannot be read is no error:
// it is said in the log and tried again by Run.
func New(cfg Config) (*Agent, error) {
	a, err := newAgent(cfg)
	if err != nil {
		return nil, err
	}
	if err := a.begin(); err != nil {
		a.logger.Error("cannot read what was registered here before; will try again", "dir", cfg.DataDir, "err", err)
	}
	return a, nil
}

// newAgent makes an agent that holds nothing yet.
func newAgent(cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, logger: cfg.Logger,
		services: map[string]*service{}, checks: map[string]*checkState{},
		aliases: map[string]chan struct{}{}, goneServices: map[string]bool{}, goneChecks: map[string]bool{},
		changed: make(chan struct{}), turned: make(chan struct{}), discard: cfg.DiscardCheckOutput,
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if err := a.setDefaults(); err != nil {
		return nil, err
	}
	a.files = &store{cfg.DataDir, a.logger}
	a.slots = check.NewSlots(cfg.MaxStarting)
	a.sync = newSyncer(a)
	node := a.cfg.Node
	a.own.Store(&Record{Node: &node})
	return a, nil
}

func (a *Agent) setDefaults() error {
	c := &a.cfg
	if c.Node.Node == "" {
		return errors.New("agent needs the name of its node")
	}
	if c.MaxServices <= 0 {
		c.MaxServices = DefaultMaxServices
	}
	if c.MaxChecks <= 0 {
		c.MaxChecks = DefaultMaxChecks
	}
	if c.CheckOutputMaxSize <= 0 {
		c.CheckOutputMaxSize = check.DefaultOutputSize
	}
	if c.CheckUpdateInterval == 0 {
		c.CheckUpdateInterval = DefaultCheckUpdateInterval
	}
	if c.OnChange == nil {
		c.OnChange = func(Change) {}
	}
	if c.Members == nil {
		c.Members = func() int { return 1 }
	}
	return nil
}

// Run runs the checks, keeps the catalog equal to what the agent holds, and
// removes services that were critical for too long, until ctx ends; then it
// waits for all it started and returns nil. It may be called again afterwards.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	if a.running != nil {
		a.mu.Unlock()
		return errors.New("agent is running already")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.running = ctx
	for _, c := range a.checks {
		a.startLocked(c)
	}
	a.started.Go(func() { a.reap(ctx) })
	a.started.Go(func() { a.sync.run(ctx) })
	a.mu.Unlock()

	<-ctx.Done()
	a.mu.Lock()
	a.running = nil // from here on nothing is started
	for _, c := range a.checks {
		c.undeferLocked()
	}
	a.mu.Unlock()
	a.started.Wait()
	return nil
}

// Own returns the agent's node, services and checks as they are now. It takes
// no lock.
func (a *Agent) Own() Record { return *a.own.Load() }

// Services returns the services by ID. What they point at is shared.
func (a *Agent) Services() map[string]*catalog.Service {
	own := a.Own()
	m := make(map[string]*catalog.Service, len(own.Services))
	for _, s := range own.Services {
		m[s.ID] = s
	}
	return m
}

// Checks returns the checks by ID. What they point at is shared.
func (a *Agent) Checks() map[string]*catalog.Check {
	own := a.Own()
	m := make(map[string]*catalog.Check, len(own.Checks))
	for _, c := range own.Checks {
		m[c.CheckID] = c
	}
	return m
}

// Changed returns a channel that is closed at the next change of Own.
func (a *Agent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// publishLocked makes changes show in Own. A change that touches one of many
// copies pointers only.
func (a *Agent) publishLocked(change func(*Record)) {
	next := *a.own.Load()
	change(&next)
	a.own.Store(&next)
	close(a.changed)
	a.changed = make(chan struct{})
}

func (r *Record) setService(s *catalog.Service) {
	r.Services = with(r.Services, s.ID, serviceID, s)
}

func (r *Record) dropService(id string) { r.Services = without(r.Services, id, serviceID) }

func (r *Record) setCheck(c *catalog.Check) {
	r.Checks = with(r.Checks, c.CheckID, checkID, c)
}

func (r *Record) dropCheck(id string) { r.Checks = without(r.Checks, id, checkID) }

func serviceID(s *catalog.Service) string { return s.ID }
func checkID(c *catalog.Check) string     { return c.CheckID }

// with returns a copy of the ordered list that holds item in its place.
func with[T any](list []T, id string, idOf func(T) string, item T) []T {
	i, found := find(list, id, idOf)
	next := make([]T, 0, len(list)+1)
	next = append(append(next, list[:i]...), item)
	if found {
		i++
	}
	return append(next, list[i:]...)
}

// without returns a copy of the ordered list that lacks the ID.
func without[T any](list []T, id string, idOf func(T) string) []T {
	i, found := find(list, id, idOf)
	if !found {
		return list
	}
	return append(slices.Clone(list[:i]), list[i+1:]...)
}

func find[T any](list []T, id string, idOf func(T) string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(item T, id string) int {
		switch have := idOf(item); {
		case have < id:
			return -1
		case have > id:
			return 1
		}
		return 0
	})
}

// touched collects what a change bears on.
type touched struct {
	services map[string]bool
	node     bool
}

// add takes in a check's owner: a service, or the node if there is none.
func (t *touched) add(serviceName string) {
	if serviceName == "" {
		t.node = true
		return
	}
	if t.services == nil {
		t.services = map[string]bool{}
	}
	t.services[serviceName] = true
}

// notify hands the change to whoever asked for it, and wakes what follows.
func (a *Agent) notify(t touched) {
	if !t.node && len(t.services) == 0 {
		return
	}
	a.wake()
	a.cfg.OnChange(Change{Services: slices.Sorted(maps.Keys(t.services)), Node: t.node})
}

// kept wraps the error of a write of files into what its caller should know.
func kept(what, id, dir string, err error) error {
	return fmt.Errorf("%s %q is refused because it cannot be kept in %s: %w", what, id, dir, err)
}
