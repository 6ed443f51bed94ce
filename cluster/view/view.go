// Package view holds what this host knows of the catalog, ready to be answered
// from: the one place where DNS looks services, nodes and addresses up.
//
// A View publishes immutable States by an atomic pointer. It is fed by one
// Source (the state machine in this process, or a stream from a server) and by
// this host's agent, whose word replaces the catalog's for the own node. From
// the first moment it answers what the agent holds; other names are NotYet until
// a base set, the set of names that exist, has come from anywhere.
//
// Of a small catalog a source tells everything. Of a large one it tells the base
// set, and contents of the services that were asked for: Want subscribes, and
// what nobody needs for an hour ends. A service whose contents are not here is
// NotYet; what was known of it before is to be had as Older.
//
// What is known comes in layers, node by node. On top what the present history
// says; below it what is remembered of earlier ones, until the node has told
// this one all it has, has left, or is named by a tombstone. So a catalog that
// begins anew, empty, makes no answer shrink. A source that lags behind, or that
// tells another history without a leader, is heard but does not count yet.
//
// Freshness rests on counters, each atomic, only growing, none used twice. A
// writer publishes the new state, then moves the counters of what the change
// touches: those of the names, Names when a name begins or ceases, Any. A name
// that ceases has its counter moved once more and given up. A reader loads the
// state, takes its counters from that state, reads their values, loads the state
// again and begins anew if it is another one; then builds from that state. What
// it built is good while the counters are equal to the values read: it can be
// dropped too early, never served too late. Nobody waits for anybody.
//
// The package knows nothing of DNS, HTTP, gossip, Raft or the network.
package view

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
)

const (
	// StaleAfter is for how long a view is fresh after a server that has a
	// leader confirmed it. It is longer than an election on a good network, so
	// that a change of leaders shows nowhere.
	StaleAfter = 5 * time.Second
	// MaxWait bounds View.Wait: a caller has its answer from the catalog and
	// only waits for it to show in lookups here.
	MaxWait = time.Second
)

// Config is what a View needs. Its zero value is a view of nothing.
type Config struct {
	// NodeName and NodeID are this host's; the agent's word counts for this
	// node alone.
	NodeName string
	NodeID   string
	// Local is this host's agent; nil: none.
	Local Local
	// Liveness is who knows which nodes are alive; nil: nobody.
	Liveness catalog.Liveness
	// Living returns the IDs of the members that are alive, as gossip says. It
	// is called with the view's lock held and must not block; nil: nobody
	// knows, and histories are taken to be complete.
	Living func() iter.Seq[string]
	// Expecting says that there are others who may know more of the catalog than
	// this host does when it has its first base set: from a file of before, or
	// from a catalog that has only begun. Until it has heard them, names that
	// others may have, or have more of, are NotYet; see Learned.
	Expecting bool
	// Lives returns what gossip says of members, for the file and for
	// neighbours (VIEWS rule 19); nil: what Liveness says.
	Lives func() []LifeOf
	// Logger gets what an operator wants to know; nil: nobody.
	Logger *slog.Logger
}

// View is what this host knows of the catalog. Its methods are safe for
// concurrent use.
type View struct {
	cfg    Config
	logger *slog.Logger
	ownKey string
	made   time.Time

	state atomic.Pointer[State]

	base      chan struct{}             // closed when the base set first arrives
	heard     chan struct{}             // holds one: a confirmation came
	following atomic.Bool               // a Follow is running
	confirmed atomic.Pointer[time.Time] // when the last confirmation came; written with mu held
	published atomic.Uint64             // how many states have been

	asking sync.Mutex // held while a source is asked; taken before mu

	mu  sync.Mutex // guards following; held by whoever makes the next state
	own *Record
	// current is what the present history says; nil: no base set yet. pending
	// is what the source tells while it doesn't count; nil: it does.
	current, pending *replica
	resumed          *replica // what the source was last told to go on from
	// remembered is what earlier histories said of nodes, missed are names from
	// them whose contents were not here.
	remembered       map[string]*nodeRecord
	rememberedOrigin *origin
	missed           keys
	origins          map[string]*origin   // of older contents, by service key
	asked            map[string]time.Time // when contents that nobody subscribes to were last asked for
	// earlier says that this host has known an earlier history, or a file's or
	// a neighbour's word for it. allSynced says that all living members have told
	// the present one all they have.
	earlier, allSynced bool
	// expecting says that others may know more, and haven't been heard yet.
	expecting bool
	refused   string // the history that was last said to be refused

	src     Source // the one that is followed; nil: none
	subs    map[string]*subscription
	asks    []string             // to be asked of src
	ended   map[string]time.Time // when src was told to end what it may tell yet
	waiting map[string]chan struct{}
}

// New returns a view that already shows what the agent holds.
func New(cfg Config) (*View, error) {
	if cfg.Local != nil && cfg.NodeName == "" {
		return nil, errors.New("view: an agent needs the name of its node: set NodeName")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	v := &View{
		cfg:        cfg,
		logger:     cfg.Logger,
		ownKey:     nameKey(cfg.NodeName),
		made:       time.Now(),
		base:       make(chan struct{}),
		heard:      make(chan struct{}, 1),
		remembered: make(map[string]*nodeRecord),
		origins:    make(map[string]*origin),
		asked:      make(map[string]time.Time),
		subs:       make(map[string]*subscription),
		waiting:    make(map[string]chan struct{}),
		ended:      make(map[string]time.Time),
		expecting:  cfg.Expecting,
	}
	v.state.Store(newState(v))
	v.OnLocalChange()
	return v, nil
}

// Load returns the newest state.
func (v *View) Load() *State { return v.state.Load() }

// Confirmed returns when a server that has a leader last confirmed the view; the
// zero time if none ever did. It waits for nobody.
func (v *View) Confirmed() time.Time {
	if at := v.confirmed.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Run turns the view stale when confirmations stay out, and ends subscriptions
// that nobody needs. It returns when ctx ends.
func (v *View) Run(ctx context.Context) error {
	timer := time.NewTimer(StaleAfter)
	defer timer.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.heard:
			timer.Reset(StaleAfter)
		case <-timer.C:
			v.turnStale()
		case now := <-sweep.C:
			v.sweep(now)
		}
	}
}

// OnLocalChange takes over what the agent holds now. When it returns, lookups
// on this host show it.
func (v *View) OnLocalChange() {
	if v.cfg.Local == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	own := v.cfg.Local.Own()
	v.own = &own
	b := v.newBuilder()
	b.touchNode(v.ownKey)
	v.rebuild(b)
	v.publish(b)
}

// OnLifeChange takes over what Liveness says now of the node with the ID.
func (v *View) OnLifeChange(nodeID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.newBuilder()
	if key, ok := nodeWithID(&b.ids.table, nodeID); ok {
		b.touchNode(key)
	}
	v.rebuild(b)
	v.publishChange(b)
}

// BumpEpoch drops every answer that was made from the view: for whoever has
// changed what answers depend on besides the catalog (limits, TTLs, domain,
// token). Call it after the new values are in force.
func (v *View) BumpEpoch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	// A new state as well: a reader that read the old values must not take the
	// new epoch for theirs.
	b := v.newBuilder()
	b.bumpEpoch()
	v.publish(b)
}

// turnStale marks the view stale unless a confirmation came meanwhile.
func (v *View) turnStale() {
	v.mu.Lock()
	defer v.mu.Unlock()
	b := v.newBuilder()
	if !b.next.fresh || time.Since(v.Confirmed()) < StaleAfter {
		return
	}
	b.next.fresh = false
	b.bumpEpoch()
	v.logger.Warn("no server with a leader confirms the catalog, answers may be stale", "dur", StaleAfter)
	v.publish(b)
}

// publishChange publishes the next state unless it is as the present one.
func (v *View) publishChange(b *stateBuilder) {
	if b.isChanged() {
		v.publish(b)
	}
}

// publish puts the next state in force: the state first, then the counters, then
// those who wait. It is called with v.mu held.
func (v *View) publish(b *stateBuilder) {
	old := v.state.Load()
	next, bumps := b.finish()
	v.state.Store(next)
	for _, c := range bumps {
		c.Add(1)
	}
	v.published.Add(1)
	if next.base && !old.base {
		close(v.base)
	}
	close(old.superseded)
	v.wakeWaiting(next)
}

// Wait blocks until changes up to index, base added, show in the view; at most
// MaxWait, or until ctx ends, whose error it returns.
func (v *View) Wait(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, MaxWait,
		fmt.Errorf("wait for index %d in the view: not there within %s", index, MaxWait))
	defer cancel()
	for {
		s := v.state.Load()
		if s.index >= index {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.superseded:
		}
	}
}
