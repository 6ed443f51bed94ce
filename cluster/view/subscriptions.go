package view

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

const (
	// idleAfter is how long nobody may ask for a service before it is put to
	// the test whether anybody still needs it.
	idleAfter = time.Hour
	// probation is how long that test takes: what was made from the contents
	// has been dropped, so who needs them asks.
	probation = time.Minute
	// sweepEvery is how often that is looked at.
	sweepEvery = 10 * time.Second
	// maxWaiting bounds how many names are waited for by name.
	maxWaiting = 4096
)

// Whence contents are, as Provenance says.
const (
	fromCatalog = "catalog"
	fromAgent   = "agent"
)

// errNoBeginning ends a source that doesn't begin, errResumedElsewhere one that goes on
// from what this host knew before a neighbour told it more.
var (
	errNoBeginning      = errors.New("the source began with less than the whole")
	errResumedElsewhere = errors.New("the source goes on from less than is known by now")
)

// closed is the channel of those who need not wait.
var closed = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// subscription is a service whose contents this host asks for.
type subscription struct {
	used  time.Time // when it was last seen to be
	tried time.Time // when it was put to the test; zero: it isn't
}

// Follow feeds the view from src until ctx ends or src is lost, and says which
// by its error; nil for ctx. What the view knows stays, and services that were
// subscribed to are asked of the next source. Only one Follow may run at a time.
func (v *View) Follow(ctx context.Context, src Source) error {
	if !v.following.CompareAndSwap(false, true) {
		return errors.New("view: follows a source already")
	}
	defer v.following.Store(false)
	v.setSource(src)
	defer v.setSource(nil)
	for {
		v.sendSubscriptions()
		u, err := src.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("follow the catalog: %w", err)
		}
		if err := v.applyUpdate(u); err != nil {
			return fmt.Errorf("follow the catalog: %w", err)
		}
	}
}

// setSource begins with a source, or ends with one.
func (v *View) setSource(src Source) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.src, v.pending = src, nil
	clear(v.ended)
	v.resubscribe()
}

// resubscribe has all subscriptions asked for whose contents are not here: the
// source knows of those that are, from Resume or because it told them.
func (v *View) resubscribe() {
	v.asks = nil
	if v.current != nil && v.current.vouched && v.current.whole {
		clear(v.subs)
		return
	}
	for name := range v.subs {
		if v.current == nil || !v.current.complete.has(name) {
			v.asks = append(v.asks, name)
		}
	}
	if v.current == nil || v.current.whole {
		return
	}
	now := time.Now()
	for name := range v.current.complete.all() {
		if v.subs[name] == nil {
			v.subs[name] = &subscription{used: v.lastAsked(name, now)}
		}
	}
}

// lastAsked returns when a service was last asked for; now if that is unknown.
func (v *View) lastAsked(name string, now time.Time) time.Time {
	if at, ok := v.asked[name]; ok {
		return at
	}
	return now
}

// sendSubscriptions passes on to the source what is to be asked.
func (v *View) sendSubscriptions() {
	v.asking.Lock()
	defer v.asking.Unlock()
	v.mu.Lock()
	src, names := v.src, v.asks
	if src != nil {
		v.asks = nil
	}
	v.mu.Unlock()
	if src != nil && len(names) > 0 {
		slices.Sort(names)
		src.Subscribe(names...)
	}
}

// Want says that somebody asks for a service, in any letter case, and returns a
// channel that is closed once its contents are known, or that it doesn't exist.
// It subscribes to the name if need be. It is cheap and may be called for every
// question; it does not wait.
func (v *View) Want(name string) <-chan struct{} {
	if _, _, known := v.Load().Service(name); known != catalog.NotYet {
		return closed
	}
	ch, ask := v.waitFor(nameKey(name))
	if ask {
		v.sendSubscriptions()
	}
	return ch
}

// waitFor returns the channel to wait on, and whether the source is to be asked.
func (v *View) waitFor(key string) (ch <-chan struct{}, ask bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state.Load().knows(key) != catalog.NotYet {
		return closed, false
	}
	if v.waiting[key] == nil {
		if len(v.waiting) >= maxWaiting {
			return v.base, false
		}
		v.waiting[key] = make(chan struct{})
	}
	v.subscribe(key)
	return v.waiting[key], len(v.asks) > 0
}

// subscribe notes that the contents of a service are wanted, if they are to be
// had by asking.
func (v *View) subscribe(key string) {
	c := v.current
	if c == nil || v.subs[key] != nil || c.isHere(key) || !c.names.has(key) && !v.missed.has(key) {
		return
	}
	v.subs[key] = &subscription{used: time.Now()}
	v.asks = append(v.asks, key)
	delete(v.ended, key)
}

// dropEnded sees to it that contents that were under way when their subscription
// ended don't count: nobody keeps them up to date.
func (v *View) dropEnded(h *replica) {
	for name := range v.ended {
		h.complete.drop(name)
	}
}

// wakeWaiting wakes those whose name is known by the state, and asks for the others
// if that can be done by now.
func (v *View) wakeWaiting(s *State) {
	for key, ch := range v.waiting {
		if s.knows(key) != catalog.NotYet {
			delete(v.waiting, key)
			close(ch)
			continue
		}
		v.subscribe(key)
	}
}

// knows says what is known of a service, without asking for it.
func (s *State) knows(key string) catalog.Known {
	switch e := s.service(key); {
	case e == nil:
		return s.absent()
	case e.known:
		return catalog.Present
	}
	return catalog.NotYet
}

// existence decides whether a name exists, given the instances that show, and
// whether those are its contents. Until a server tells a base set, that is so
// only of what the agent alone holds.
func (v *View) existence(name string, e *serviceEntry) (exists, known bool) {
	c, any := v.current, len(e.instances) > 0
	switch {
	case c == nil:
		return any, v.isOwn(e)
	case v.expecting && c.vouched:
		// A catalog that has only begun: it may have some of the instances.
		return any || c.names.has(name) || v.missed.has(name), false
	case c.isHere(name):
		if !any && v.missed.has(name) {
			return true, false // who has it has not told this history yet
		}
		return any, true
	case c.names.has(name) || v.missed.has(name):
		return true, false
	}
	return any, c.vouched || v.isOwn(e) && !v.expecting
}

func (s *State) baseProvenance() (from string, confirmed time.Time) {
	switch {
	case !s.base:
		return "", time.Time{}
	case s.origin != nil:
		return s.origin.from, s.origin.at
	}
	return fromCatalog, s.view.Confirmed()
}

// isOwn reports whether all instances are what this host's agent holds.
func (v *View) isOwn(e *serviceEntry) bool {
	return v.cfg.Local != nil && !slices.ContainsFunc(e.instances, func(in catalog.Instance) bool { return nameKey(in.Node.Node) != v.ownKey })
}

// sweep ends subscriptions that nobody needs (VIEWS rule 10). Answers from the
// cache don't reach the view, so what seems idle is put to the test first: its
// answers are dropped, and if somebody asks again it stays.
func (v *View) sweep(now time.Time) {
	v.asking.Lock()
	defer v.asking.Unlock()
	src, ended := v.endIdle(now)
	if src != nil && len(ended) > 0 {
		src.Unsubscribe(ended...)
	}
}

func (v *View) endIdle(now time.Time) (src Source, ended []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forgetAsked(now)
	c := v.current
	if c == nil || c.whole || !c.vouched || v.src == nil {
		return nil, nil // nothing to end, or nobody to tell
	}
	b := v.newBuilder()
	for name, sub := range v.subs {
		var m *mark
		if e := b.next.service(name); e != nil {
			m = e.mark
		}
		switch {
		case m != nil && m.used.Swap(false):
			sub.used, sub.tried = now, time.Time{}
		case now.Sub(sub.used) < idleAfter:
		case sub.tried.IsZero():
			sub.tried = now
			if m != nil {
				b.bump(&m.counter)
			}
		case now.Sub(sub.tried) >= probation:
			delete(v.subs, name)
			c.complete.drop(name)
			v.ended[name] = now
			v.origins[name] = &origin{from: fromCatalog, at: v.Confirmed()}
			v.asked[name] = sub.used
			b.touchName(name)
			ended = append(ended, name)
		}
	}
	if len(b.bumps) == 0 && len(ended) == 0 {
		return nil, nil
	}
	v.publish(b)
	slices.Sort(ended)
	return v.src, ended
}

// forgetAsked forgets when names were asked for of which there are no contents any
// more, and that subscriptions ended whose last answer has come by now.
func (v *View) forgetAsked(now time.Time) {
	s := v.state.Load()
	maps.DeleteFunc(v.asked, func(name string, _ time.Time) bool {
		e := s.service(name)
		return e == nil || len(e.instances) == 0
	})
	maps.DeleteFunc(v.ended, func(_ string, at time.Time) bool { return now.Sub(at) > probation })
}

// originOf says whence the contents of a service are that isn't known; nil
// otherwise.
func (v *View) originOf(name string, known bool) *origin {
	switch {
	case known:
		return nil
	case v.origins[name] != nil:
		return v.origins[name]
	case v.current != nil && v.current.origin != nil:
		return v.current.origin
	}
	return v.rememberedOrigin
}

// Provenance says by what way the contents of a service, in any letter case,
// came: "catalog", "disk", "neighbour" or "agent", and when a server that has a
// leader last confirmed them; the zero time: never, or nobody knows. Of a name
// that has no contents here it says so of the base set; "": there is none.
func (s *State) Provenance(name string) (from string, confirmed time.Time) {
	e := s.service(nameKey(name))
	switch {
	case e == nil || len(e.instances) == 0:
		return s.baseProvenance()
	case !e.known && e.origin != nil:
		return e.origin.from, e.origin.at
	case s.view.isOwn(e):
		return fromAgent, time.Now()
	}
	return fromCatalog, s.view.Confirmed()
}

func sorted(keys set) []string { return slices.Sorted(maps.Keys(keys)) }
