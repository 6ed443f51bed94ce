package leader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
)

// What serfHealth says; Consul's words.
const (
	serfName   = "Serf Health Status"
	serfAlive  = "Agent alive and reachable"
	serfFailed = "Agent not live or unreachable"
)

const (
	// writers is how many commands of one round are under way at once, so that
	// a burst shares the log's writes to disk.
	writers = 16
	// guardWindow is how far back the failures go that put the mass-failure guard on.
	guardWindow = time.Minute
	// nameHeld is for how long a node that is no member keeps its name from a
	// living member: until then gossip may not have told who else claims it.
	nameHeld = time.Minute
)

// reconciler makes the catalog say what is known of members. What it has done
// for a member it doesn't do again until the member changes or all are gone
// through, so that a round costs what has changed.
type reconciler struct {
	*Leader
	began     time.Time
	done      map[string]Member    // by name: as the catalog was last made to say
	refused   map[string]time.Time // by name: since when the catalog refuses a member
	absent    map[string]time.Time // by name: since when a node was a member no more
	guarded   bool
	guardedAt time.Time // when the guard went on
	halfOff   bool      // so many nodes are absent that none is judged; said once
}

func newReconciler(l *Leader) *reconciler {
	return &reconciler{
		Leader: l, began: time.Now(),
		done: make(map[string]Member), refused: make(map[string]time.Time), absent: make(map[string]time.Time),
	}
}

// round goes through the members that changed, or through all of them and the
// nodes that are no members.
func (r *reconciler) round(ctx context.Context, members []*Member, guarded, all bool) error {
	all = r.setGuard(guarded) || all
	todo := r.changedOf(members, all)
	// A name is free only when its former holder has gone.
	err := r.each(ctx, todo, func(m Member) bool { return m.Status == Left })
	if err == nil {
		err = r.each(ctx, todo, func(m Member) bool { return m.Status != Left })
	}
	if err != nil || !all || guarded {
		return err
	}
	return r.absentees(ctx, members)
}

// setGuard reports whether the guard went on or off: every failure is
// judged anew then.
func (r *reconciler) setGuard(guarded bool) (changed bool) {
	changed = guarded != r.guarded
	if guarded && changed {
		r.guardedAt = time.Now()
		r.logger.Warn("so many members failed at once that this host may be the one cut off: no failure is written to the catalog until half are back")
	}
	r.guarded = guarded
	return changed
}

// changedOf returns the members to be dealt with, as they are judged, and
// forgets those that are no more.
func (r *reconciler) changedOf(members []*Member, all bool) []Member {
	names := make(map[string]struct{}, len(members))
	twins := r.twinsOf(members)
	var todo []Member
	for _, seen := range members {
		m := *seen
		name := fold(m.Node.Node)
		names[name] = struct{}{}
		if keeper, ok := twins[m.Node.ID]; ok && keeper != name {
			if m.Status != Alive {
				continue // it goes by the keeper's name now
			}
			m.Conflict = "the node ID " + m.Node.ID + " is that of " + keeper + " too"
		}
		if m.Status == Failed && r.guarded {
			if !r.isTakenBack(m) {
				continue
			}
			m.Status = Alive
		}
		if old, ok := r.done[name]; ok && !all && sameMember(old, m) {
			continue
		}
		if m.Conflict != "" {
			if old := r.done[name]; old.Conflict != m.Conflict {
				r.logger.Warn("member is left alone until its conflict is settled", "node", m.Node.Node, "conflict", m.Conflict)
			}
			r.done[name] = m
			continue
		}
		todo = append(todo, m)
	}
	maps.DeleteFunc(r.done, func(name string, _ Member) bool { _, there := names[name]; return !there })
	maps.DeleteFunc(r.refused, func(name string, _ time.Time) bool { _, there := names[name]; return !there })
	return todo
}

// twinsOf returns for each ID that several members have, one of them living, the
// name that keeps it: the living one's; of two, the one that the catalog has.
func (r *reconciler) twinsOf(members []*Member) map[string]string {
	first := make(map[string]int, len(members)) // by ID
	twins := make(map[string]string)
	for i, m := range members {
		id := m.Node.ID
		if id == "" || m.Conflict != "" {
			continue
		}
		j, ok := first[id]
		if !ok {
			first[id] = i
			continue
		}
		if r.keeps(members[i], members[j]) {
			first[id] = i
		}
		if keeper := members[first[id]]; keeper.Status == Alive {
			twins[id] = fold(keeper.Node.Node)
		}
	}
	return twins
}

// keeps reports whether of two members with one ID a is the one.
func (r *reconciler) keeps(a, b *Member) bool {
	if a.Status != b.Status {
		return a.Status < b.Status
	}
	_, node := r.cfg.Catalog.Read().Node(nil, b.Node.Node)
	return node == nil || !strings.EqualFold(node.ID, b.Node.ID)
}

// isTakenBack reports whether a member's failure is one of those that put
// the guard on. It is taken back, if it was written before there were enough of
// them; other failures are neither written nor taken back while it is on.
func (r *reconciler) isTakenBack(m Member) bool {
	if !m.Since.After(r.guardedAt.Add(-guardWindow)) {
		return false
	}
	_, node := r.cfg.Catalog.Read().Node(nil, m.Node.Node)
	return node != nil && strings.EqualFold(node.ID, m.Node.ID)
}

// each carries out what the members that are meant need. One that is refused
// doesn't keep the others from it.
func (r *reconciler) each(ctx context.Context, todo []Member, meant func(Member) bool) error {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards errs and the reconciler's maps
	var errs []error
	slots := make(chan struct{}, writers)
	for _, m := range todo {
		if !meant(m) {
			continue
		}
		slots <- struct{}{}
		mu.Lock()
		stop := len(errs) > 0
		mu.Unlock()
		if stop || ctx.Err() != nil {
			break
		}
		held := r.heldOff(m, &mu)
		wg.Go(func() {
			defer func() { <-slots }()
			err := r.agree(ctx, m, held)
			mu.Lock()
			defer mu.Unlock()
			if err = r.recordResult(m, err); err != nil {
				errs = append(errs, fmt.Errorf("member %s: %w", m.Node.Node, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// heldOff reports whether the catalog has refused the member for so long that
// whoever holds its name is to give way.
func (r *reconciler) heldOff(m Member, mu *sync.Mutex) bool {
	mu.Lock()
	defer mu.Unlock()
	since, ok := r.refused[fold(m.Node.Node)]
	return ok && time.Since(since) >= nameHeld
}

// recordResult keeps a refusal, which is no reason to try again soon, and returns
// any other error.
func (r *reconciler) recordResult(m Member, err error) error {
	name := fold(m.Node.Node)
	var refusal *catalog.Error
	switch {
	case err == nil:
		delete(r.refused, name)
	case errors.As(err, &refusal):
		if _, known := r.refused[name]; !known {
			r.refused[name] = time.Now()
			r.logger.Warn("catalog refuses a member", "node", m.Node.Node, "id", m.Node.ID, "err", err)
		}
	default:
		delete(r.done, name)
		return err
	}
	r.done[name] = m
	return nil
}

// agree makes the catalog say what is known of a member.
func (r *reconciler) agree(ctx context.Context, m Member, heldOff bool) error {
	if err := r.freeName(ctx, m, heldOff); err != nil {
		return err
	}
	for _, body := range wanted(r.cfg.Catalog.Read(), m) {
		if err := r.cfg.Catalog.Apply(ctx, body); err != nil {
			return err
		}
	}
	return nil
}

// freeName deregisters the holder of a living member's name if it is no member
// itself: gossip has one host of that name, and it is this one. A holder that
// gossip knows to be gone gives way at once (a host that was set up anew), one
// that it never saw when it has held the member off for long.
func (r *reconciler) freeName(ctx context.Context, m Member, heldOff bool) error {
	_, holder := r.cfg.Catalog.Read().Node(nil, m.Node.Node)
	if m.Status != Alive || holder == nil || holder.ID == "" || strings.EqualFold(holder.ID, m.Node.ID) ||
		!heldOff && !r.cfg.Members.IsGone(holder.ID) {
		return nil
	}
	members, _, _ := r.cfg.Members.Members()
	if slices.ContainsFunc(members, func(o *Member) bool { return strings.EqualFold(o.Node.ID, holder.ID) }) {
		return nil
	}
	r.logger.Warn("node gives way to a member of its name", "node", holder.Node, "id", m.Node.ID, "before", holder.ID)
	return r.cfg.Catalog.Apply(ctx, &catalog.Deregister{Node: holder.Node, NodeID: holder.ID})
}

// wanted returns the commands that make the catalog say of a member what is
// known of it; none if it does already.
func wanted(r Reader, m Member) []catalog.Body {
	_, node := r.Node(nil, m.Node.Node)
	own := node != nil && strings.EqualFold(node.ID, m.Node.ID)
	switch {
	case m.Status == Left:
		// Another node may have taken the name since.
		if !own {
			return nil
		}
		return []catalog.Body{&catalog.Deregister{Node: node.Node, NodeID: node.ID}}
	case m.Status == Failed && !own:
		return nil // what it had is gone, and the dead register nothing
	}
	want := register(m)
	// A node of the name that is another's is judged by the rules for names.
	want.SkipNodeUpdate = own
	var bodies []catalog.Body
	if !own || !isRegistered(r, want) {
		bodies = append(bodies, want)
	}
	if own && want.Service == nil && hasConsul(r, node.Node) {
		bodies = append(bodies, &catalog.Deregister{Node: node.Node, ServiceID: catalog.ConsulService, NodeID: node.ID})
	}
	return bodies
}

// register is a member's registration.
func register(m Member) *catalog.Register {
	serf := serfCheck(m.Node.Node, catalog.Passing, serfAlive)
	if m.Status == Failed {
		serf = serfCheck(m.Node.Node, catalog.Critical, serfFailed)
	}
	want := &catalog.Register{Node: m.Node, Checks: []*catalog.Check{serf}}
	// A host alone may hold the catalog without a port for others: there is
	// nothing of a server's to be found then.
	if m.Server != nil && m.Server.Port > 0 {
		want.Service = &catalog.Service{
			Node: m.Node.Node, ID: catalog.ConsulService, Service: catalog.ConsulService,
			Port: m.Server.Port, Meta: m.Server.Meta, Weights: catalog.Weights{Passing: 1, Warning: 1},
		}
	}
	return want
}

func serfCheck(node, status, output string) *catalog.Check {
	return &catalog.Check{Node: node, CheckID: catalog.SerfHealth, Name: serfName, Status: status, Output: output}
}

// isRegistered reports whether the catalog has the check and the service.
func isRegistered(r Reader, want *catalog.Register) bool {
	_, checks := r.NodeChecks(nil, want.Node.Node)
	for _, c := range want.Checks {
		if !slices.ContainsFunc(checks, func(have *catalog.Check) bool {
			return have.CheckID == c.CheckID && have.Status == c.Status && have.Output == c.Output && have.Notes == c.Notes
		}) {
			return false
		}
	}
	if want.Service == nil {
		return true
	}
	_, services := r.NodeServices(nil, want.Node.Node)
	return slices.ContainsFunc(services, func(have *catalog.Service) bool {
		return have.ID == want.Service.ID && have.Port == want.Service.Port && maps.Equal(have.Meta, want.Service.Meta)
	})
}

func hasConsul(r Reader, node string) bool {
	_, services := r.NodeServices(nil, node)
	return slices.ContainsFunc(services, func(s *catalog.Service) bool { return s.ID == catalog.ConsulService })
}

// sameMember compares what the catalog is made to say.
func sameMember(a, b Member) bool {
	return a.Status == b.Status && a.Conflict == b.Conflict &&
		a.Node.Node == b.Node.Node && a.Node.ID == b.Node.ID && a.Node.Address == b.Node.Address &&
		sameServer(a.Server, b.Server)
}

func sameServer(a, b *Server) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Port == b.Port && maps.Equal(a.Meta, b.Meta)
}

// fold is how names are compared.
func fold(name string) string { return strings.ToLower(name) }
