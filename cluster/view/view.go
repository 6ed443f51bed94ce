// Package view holds what this host knows of the catalog, ready to be answered
// from: the one place where DNS looks services, nodes and addresses up.
//
// A View publishes immutable States by an atomic pointer. It is fed by one
// Source (the state machine in this process, or a stream from a server) and by
// this host's agent, whose word replaces the catalog's for the own node. From
// the first moment it answers what the agent holds; other names are NotYet until
// a base set, the set of names that exist, has come from anywhere.
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
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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
	Liveness Liveness
	// Logger gets what an operator wants to know; nil: nobody.
	Logger *slog.Logger
}

// View is what this host knows of the catalog. Its methods are safe for
// concurrent use.
type View struct {
	cfg    Config
	logger *slog.Logger
	ownKey string

	state atomic.Pointer[State]

	base      chan struct{} // closed when the base set first arrives
	heard     chan struct{} // holds one: a confirmation came
	following atomic.Bool   // a Follow is running
	published atomic.Uint64 // how many states have been

	mu        sync.Mutex // guards following; held by whoever makes the next state
	catalog   map[string]*Record
	own       *Record
	confirmed time.Time // when the last confirmation came
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
		cfg:     cfg,
		logger:  cfg.Logger,
		ownKey:  nameKey(cfg.NodeName),
		base:    make(chan struct{}),
		heard:   make(chan struct{}, 1),
		catalog: make(map[string]*Record),
	}
	v.state.Store(newState(v.base))
	v.OnLocalChange()
	return v, nil
}

// Load returns the newest state.
func (v *View) Load() *State { return v.state.Load() }

// Confirmed returns when a server that has a leader last confirmed the view; the
// zero time if none ever did.
func (v *View) Confirmed() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.confirmed
}

// Run turns the view stale when confirmations stay out. It returns when ctx
// ends.
func (v *View) Run(ctx context.Context) error {
	timer := time.NewTimer(StaleAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.heard:
			timer.Reset(StaleAfter)
		case <-timer.C:
			v.turnStale()
		}
	}
}

// Follow feeds the view from src until ctx ends or src is lost, and says which
// by its error; nil for ctx. What the view knows stays. Only one Follow may run
// at a time.
func (v *View) Follow(ctx context.Context, src Source) error {
	if !v.following.CompareAndSwap(false, true) {
		return errors.New("view: follows a source already")
	}
	defer v.following.Store(false)
	for first := true; ; first = false {
		b, err := src.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("follow the catalog: %w", err)
		case first && !b.Whole:
			return errors.New("follow the catalog: the source began with less than the whole")
		}
		v.take(b)
	}
}

// take makes a batch part of the view.
func (v *View) take(b Batch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := newDraft(v.state.Load())
	keys := v.absorb(b)
	for _, key := range keys {
		d.set(key, v.effective(key))
	}
	if b.History.ID != d.next.history.ID && d.next.history.ID != "" {
		v.logger.Info("catalog began a new history", "history", b.History.ID, "before", d.next.history.ID)
	}
	before := *d.next // trees aside, which only keys touch
	d.next.history, d.next.index = b.History, max(b.Index, d.next.index)
	d.setBase()
	if b.Confirmed {
		v.confirm(d)
	}
	if len(keys) == 0 && *d.next == before {
		return // a heartbeat
	}
	v.publish(d)
}

// absorb notes what a batch says of the catalog and returns the keys of the
// nodes it may change.
func (v *View) absorb(b Batch) []string {
	named := make(map[string]*Record, len(b.Nodes)+len(b.Gone))
	for _, name := range b.Gone {
		named[nameKey(name)] = nil
	}
	for i := range b.Nodes {
		rec := b.Nodes[i] // a copy: the batch's array can go
		named[nameKey(rec.Node.Node)] = &rec
	}
	keys := maps.Clone(named)
	if b.Whole {
		maps.Copy(keys, v.catalog)
		v.catalog = make(map[string]*Record, len(named))
	}
	for key, rec := range named {
		if rec == nil {
			delete(v.catalog, key)
			continue
		}
		v.catalog[key] = rec
	}
	return slices.Sorted(maps.Keys(keys))
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
	d := newDraft(v.state.Load())
	d.set(v.ownKey, v.effective(v.ownKey))
	v.publish(d)
}

// OnLifeChange takes over what Liveness says now of the node with the ID.
func (v *View) OnLifeChange(nodeID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := newDraft(v.state.Load())
	key, ok := d.next.ids.Get([]byte(strings.ToLower(nodeID)))
	if !ok {
		return
	}
	d.set(key.(string), v.effective(key.(string)))
	v.publish(d)
}

// BumpEpoch drops every answer that was made from the view: for whoever has
// changed what answers depend on besides the catalog (limits, TTLs, domain,
// token). Call it after the new values are in force.
func (v *View) BumpEpoch() {
	v.mu.Lock()
	defer v.mu.Unlock()
	// A new state as well: a reader that read the old values must not take the
	// new epoch for theirs.
	d := newDraft(v.state.Load())
	d.bumpEpoch()
	v.publish(d)
}

// confirm makes the draft fresh and tells the timer.
func (v *View) confirm(d *draft) {
	v.confirmed = time.Now()
	select {
	case v.heard <- struct{}{}:
	default:
	}
	if !d.next.fresh {
		d.next.fresh = true
		d.bumpEpoch()
	}
}

// turnStale marks the view stale unless a confirmation came meanwhile.
func (v *View) turnStale() {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := newDraft(v.state.Load())
	if !d.next.fresh || time.Since(v.confirmed) < StaleAfter {
		return
	}
	d.next.fresh = false
	d.bumpEpoch()
	v.logger.Warn("no server with a leader confirms the catalog, answers may be stale", "dur", StaleAfter)
	v.publish(d)
}

// publish puts the draft in force: the state first, then the counters, then
// those who wait. It is called with v.mu held.
func (v *View) publish(d *draft) {
	old := v.state.Load()
	next, bumps := d.finish()
	v.state.Store(next)
	for _, c := range bumps {
		c.Add(1)
	}
	v.published.Add(1)
	if next.base && !old.base {
		close(v.base)
	}
	close(old.superseded)
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
