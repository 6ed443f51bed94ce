package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"meibo/cluster/catalog"
	"meibo/cluster/retry"
)

// ErrLeft is what a Catalog says on a host that has left its cluster.
var ErrLeft = errors.New("this host has left its cluster: it registers nothing any more")

// Catalog is where the agent's state is made known. Safe for concurrent use.
type Catalog interface {
	// Load returns what the catalog holds of a node; a Remote whose Node is nil
	// if it has no such node. What comes back is shared: it is never written to.
	Load(ctx context.Context, node string) (Remote, error)
	// Apply carries out a Register, Deregister or MarkSynced. An error that is
	// ErrDenied or a *catalog.Error is a refusal that asking again won't change;
	// any other is tried again.
	Apply(ctx context.Context, body catalog.Body) error
}

// Remote is what the catalog holds of one node.
type Remote struct {
	History  string // the ID of the history that it was read in
	Node     *catalog.Node
	Services []*catalog.Service
	Checks   []*catalog.Check
}

// ErrDenied is what a Catalog wraps when the agent's token lacks the right.
var ErrDenied = errors.New("permission denied")

const (
	// syncInterval is the time between full syncs, and up to as much again,
	// more in a large datacenter. (Consul's figures)
	syncInterval = time.Minute
	// scaleFrom is the number of members from which on a datacenter is large.
	scaleFrom = 128
	// retryFirst and retryMost bound the pause after a sync that failed: short
	// at first, since a leader is mostly missing for less than a second.
	retryFirst = 250 * time.Millisecond
	retryMost  = 15 * time.Second
	// syncTimeout bounds one exchange with the catalog.
	syncTimeout = 30 * time.Second
	// pushesAtOnce lets a server put several commands into one write of its log.
	pushesAtOnce = 8
)

// dirtyFlag tells whether the catalog has something as it is now.
type dirtyFlag struct{ version, synced uint64 }

func (d dirtyFlag) isSet() bool { return d.version != d.synced }

// markLocked says that the catalog lacks something.
func (a *Agent) markLocked(d *dirtyFlag) {
	a.version++
	d.version = a.version
	a.news = true
}

// goneLocked says that the catalog has something too much.
func (a *Agent) goneLocked(of map[string]bool, id string) {
	of[id] = true
	a.news = true
}

// wake has the syncer push what was marked since the last time.
func (a *Agent) wake() {
	a.mu.Lock()
	news := a.news
	a.news = false
	a.mu.Unlock()
	if !news {
		return
	}
	select {
	case a.sync.woken <- struct{}{}:
	default:
	}
}

// AwaitSync waits until the catalog has all that it should have at this moment,
// or has refused it, or until ctx ends.
func (a *Agent) AwaitSync(ctx context.Context) {
	a.mu.Lock()
	latest := a.version
	for a.owesLocked(latest) {
		turned := a.turned
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-turned:
		}
		a.mu.Lock()
	}
	a.settled = max(a.settled, latest)
	a.mu.Unlock()
}

// owesLocked reports whether the catalog lacks something that was marked up to a
// version, or has something too much.
func (a *Agent) owesLocked(latest uint64) bool {
	owes := func(d dirtyFlag) bool { return d.isSet() && d.version <= latest }
	switch {
	case len(a.goneServices) > 0, len(a.goneChecks) > 0, owes(a.nodeDirty):
		return true
	case a.settled >= latest: // most heartbeats change nothing
		return false
	}
	for _, s := range a.services {
		if owes(s.dirty) {
			return true
		}
	}
	for _, c := range a.checks {
		if owes(c.dirty) {
			return true
		}
	}
	return false
}

// deferLocked lets a change of output alone wait, so that a check that prints
// the time doesn't cost every server a write at each run.
func (a *Agent) deferLocked(c *checkState) {
	every := a.cfg.CheckUpdateInterval
	switch {
	case every < 0 || a.running == nil:
		a.markLocked(&c.dirty)
	case c.deferred == nil && !c.dirty.isSet():
		c.deferred = time.AfterFunc(every/2+rand.N(every), func() {
			a.mu.Lock()
			if c.deferred != nil {
				c.deferred = nil
				a.markLocked(&c.dirty)
			}
			a.mu.Unlock()
			a.wake()
		})
	}
}

// undeferLocked ends the wait and reports whether there was one.
func (c *checkState) undeferLocked() bool {
	if c.deferred == nil {
		return false
	}
	c.deferred.Stop()
	c.deferred = nil
	return true
}

// syncer makes the catalog equal to the agent's state: all of it now and then,
// what changed at once. Changes that come while it works go together.
type syncer struct {
	a      *Agent
	woken  chan struct{}      // capacity 1: something is dirty
	resync chan time.Duration // capacity 1: a full sync within so long
}

func newSyncer(a *Agent) *syncer {
	return &syncer{a: a, woken: make(chan struct{}, 1), resync: make(chan time.Duration, 1)}
}

// Resync has a full sync done at a random time within so long: for when servers
// or a leader have appeared. Consul takes 3 s times [Scale]; 0 is at once.
func (a *Agent) Resync(within time.Duration) {
	select {
	case a.sync.resync <- within:
	default:
	}
}

// Scale is by how much a datacenter of so many members spreads its syncs.
func Scale(members int) int {
	if members <= scaleFrom {
		return 1
	}
	return 1 + bits.Len(uint((members-1)/scaleFrom))
}

func (s *syncer) run(ctx context.Context) {
	if s.a.cfg.Catalog == nil {
		return
	}
	full := true // the next turn of the timer is a full sync
	begun := false
	failures := 0
	again := retry.Backoff{Min: retryFirst, Max: retryMost}
	for timer := time.NewTimer(0); ; {
		// While turns fail, changes wait for the next try like all the rest; for a
		// full sync that is due later they don't.
		woken := s.woken
		if failures > 0 || !begun {
			woken = nil
		}
		now := false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case within := <-s.resync:
			full, failures = true, 0
			again.Reset()
			timer.Reset(jitter(within))
			continue
		case <-timer.C:
			full = full || failures == 0
			now = full
		case <-woken:
		}
		err := s.turn(ctx, now)
		s.a.mu.Lock()
		close(s.a.turned)
		s.a.turned = make(chan struct{})
		s.a.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		s.a.counts.turn(now, err)
		if err != nil {
			failures++
			level := failureLevel(failures)
			if errors.Is(err, ErrLeft) { // as it was told to
				level = slog.LevelDebug
			}
			s.a.logger.Log(ctx, level, "cannot sync with the catalog; will try again", "full", now, "err", err)
			timer.Reset(again.Next())
			continue
		}
		if full && !now {
			continue // it is still to come
		}
		begun = begun || now
		if full || failures > 0 {
			timer.Reset(syncInterval + jitter(syncInterval*time.Duration(Scale(s.a.cfg.Members()))))
		}
		full, failures = false, 0
		again.Reset()
	}
}

// turn does a full or a partial sync.
func (s *syncer) turn(ctx context.Context, full bool) error {
	if !full {
		return s.push(ctx)
	}
	load, cancel := context.WithTimeout(ctx, syncTimeout)
	remote, err := s.a.cfg.Catalog.Load(load, s.a.cfg.Node.Node)
	cancel()
	if err != nil {
		return fmt.Errorf("read this node from the catalog: %w", err)
	}
	s.a.compare(remote)
	if err := s.push(ctx); err != nil {
		return err
	}
	if remote.History == "" || remote.Node != nil && remote.Node.Synced == remote.History {
		return nil
	}
	mark := &catalog.MarkSynced{NodeID: s.a.cfg.Node.ID, History: remote.History}
	return s.do(ctx, step{mark, "mark of a full sync", func() {}})
}

func (s *syncer) apply(ctx context.Context, body catalog.Body) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	return s.a.cfg.Catalog.Apply(ctx, body)
}

// step is one command and what to do once the catalog has carried it out.
type step struct {
	body catalog.Body
	what string
	done func() // called with Agent.mu held
}

// push sends what is dirty: first the node, which the rest stands on, then what
// went, then what came or changed.
func (s *syncer) push(ctx context.Context) error {
	node, gone, come := s.a.steps()
	for _, steps := range [][]step{node, gone, come} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(pushesAtOnce)
		for _, st := range steps {
			group.Go(func() error { return s.do(ctx, st) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// do carries out a step. What is refused counts as done until the next full
// sync: asking again at once would be refused again.
func (s *syncer) do(ctx context.Context, st step) error {
	err := s.apply(ctx, st.body)
	var refused *catalog.Error
	if errors.Is(err, ErrDenied) || errors.As(err, &refused) {
		s.a.counts.refused.Add(1)
		s.a.logger.Warn("catalog refuses what this agent holds", "what", st.what, "err", err)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", st.what, err)
	}
	s.a.logger.Debug("synced with the catalog", "what", st.what)
	s.a.mu.Lock()
	st.done()
	s.a.mu.Unlock()
	return nil
}

// steps lists what is dirty now.
func (a *Agent) steps() (node, gone, come []step) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodeDirty.isSet() {
		v := a.nodeDirty.version
		node = append(node, step{&catalog.Register{Node: a.cfg.Node}, "node", func() { a.nodeDirty.synced = v }})
	}
	for id := range a.goneServices {
		gone = append(gone, step{&catalog.Deregister{Node: a.cfg.Node.Node, ServiceID: id}, "removal of service " + id,
			func() { delete(a.goneServices, id) }})
	}
	for id := range a.goneChecks {
		gone = append(gone, step{&catalog.Deregister{Node: a.cfg.Node.Node, CheckID: id}, "removal of check " + id,
			func() { delete(a.goneChecks, id) }})
	}
	return node, gone, a.registrationsLocked()
}

// registrationsLocked makes one command for each service with its dirty checks,
// so that a service never shows without them, and one for those of the node.
func (a *Agent) registrationsLocked() []step {
	checks := map[string][]*checkState{}
	for _, c := range a.checks {
		if c.dirty.isSet() {
			checks[c.def.ServiceID] = append(checks[c.def.ServiceID], c)
		}
	}
	var steps []step
	for id, s := range a.services {
		if s.dirty.isSet() || len(checks[id]) > 0 {
			steps = append(steps, a.registrationLocked("service "+id, s, checks[id]))
		}
	}
	if len(checks[""]) > 0 {
		steps = append(steps, a.registrationLocked("checks of the node", nil, checks[""]))
	}
	return steps
}

func (a *Agent) registrationLocked(what string, s *service, checks []*checkState) step {
	body := &catalog.Register{Node: a.cfg.Node, SkipNodeUpdate: true}
	sent := map[string]uint64{}
	for _, c := range checks {
		record := *c.record
		body.Checks = append(body.Checks, &record)
		sent[c.def.ID] = c.dirty.version
	}
	slices.SortFunc(body.Checks, func(x, y *catalog.Check) int { return strings.Compare(x.CheckID, y.CheckID) })
	var id string
	var version uint64
	if s != nil && s.dirty.isSet() {
		record := *s.record
		body.Service = &record
		id, version = s.def.ID, s.dirty.version
	}
	return step{body, what, func() {
		// What has changed meanwhile has another version, and stays dirty.
		if s := a.services[id]; s != nil && id != "" && s.dirty.version == version {
			s.dirty.synced = version
		}
		for id, version := range sent {
			if c := a.checks[id]; c != nil && c.dirty.version == version {
				c.dirty.synced = version
			}
		}
	}}
}

// compare marks all that the catalog lacks, or has otherwise, or too much.
func (a *Agent) compare(remote Remote) {
	a.mu.Lock()
	t := a.compareLocked(remote)
	a.mu.Unlock()
	if len(t.services) > 0 {
		a.notify(t)
	}
}

func (a *Agent) compareLocked(remote Remote) (t touched) {
	if !sameNode(&a.cfg.Node, remote.Node) {
		a.markLocked(&a.nodeDirty)
	}
	services := map[string]bool{}
	for _, r := range remote.Services {
		services[r.ID] = true
		s := a.services[r.ID]
		switch {
		case s == nil && r.ID != catalog.ConsulService:
			a.goneLocked(a.goneServices, r.ID)
		case s != nil:
			a.overrideTagsLocked(s, r, &t)
			a.setSyncedLocked(&s.dirty, catalog.SameService(s.record, r))
		}
	}
	checks := map[string]bool{}
	for _, r := range remote.Checks {
		checks[r.CheckID] = true
		c := a.checks[r.CheckID]
		switch {
		case c == nil && r.CheckID != catalog.SerfHealth:
			a.goneLocked(a.goneChecks, r.CheckID)
		case c != nil:
			a.setSyncedLocked(&c.dirty, sameCheck(c.record, r, c.deferred != nil))
		}
	}
	a.unmarkGoneLocked(services, checks)
	return t
}

// unmarkGoneLocked marks what the catalog does not have at all, and forgets
// removals that it need not hear of any more.
func (a *Agent) unmarkGoneLocked(services, checks map[string]bool) {
	maps.DeleteFunc(a.goneServices, func(id string, _ bool) bool { return !services[id] })
	maps.DeleteFunc(a.goneChecks, func(id string, _ bool) bool { return !checks[id] })
	for id, s := range a.services {
		if !services[id] {
			a.markLocked(&s.dirty)
		}
	}
	for id, c := range a.checks {
		if !checks[id] {
			a.markLocked(&c.dirty)
		}
	}
}

// setSyncedLocked takes in whether the catalog has something as it is now.
func (a *Agent) setSyncedLocked(d *dirtyFlag, same bool) {
	if same {
		d.synced = d.version
		return
	}
	a.markLocked(d)
}

// overrideTagsLocked takes over the catalog's tags where the service allows it.
func (a *Agent) overrideTagsLocked(s *service, remote *catalog.Service, t *touched) {
	if !s.def.EnableTagOverride || slices.Equal(s.record.Tags, remote.Tags) {
		return
	}
	record := *s.record
	record.Tags = remote.Tags
	s.record = &record
	t.add(s.def.Name)
	a.publishLocked(func(r *Record) {
		r.setService(s.record)
		a.relabelLocked(r, s)
	})
}

func sameNode(own, remote *catalog.Node) bool {
	return remote != nil && !remote.Agentless &&
		strings.EqualFold(own.ID, remote.ID) && own.Node == remote.Node &&
		own.Address == remote.Address && own.Datacenter == remote.Datacenter &&
		catalog.SameLocality(own.Locality, remote.Locality) &&
		maps.Equal(own.TaggedAddresses, remote.TaggedAddresses) && maps.Equal(own.Meta, remote.Meta)
}

// sameCheck leaves out the name and tags of the service, which the catalog
// fills in itself, and an output that is on its way.
func sameCheck(own, remote *catalog.Check, outputLater bool) bool {
	return own.Name == remote.Name && own.Status == remote.Status && own.Notes == remote.Notes &&
		(outputLater || own.Output == remote.Output) &&
		own.ServiceID == remote.ServiceID && own.Type == remote.Type &&
		own.Interval == remote.Interval && own.Timeout == remote.Timeout
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}
