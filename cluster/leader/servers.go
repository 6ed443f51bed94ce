package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/retry"
)

const (
	// autopilotEvery is how often the servers are asked how they are, besides when
	// members change. It is Consul's.
	autopilotEvery = 2 * time.Second
	// autopilotGap is the least time between two rounds of asking.
	autopilotGap = time.Second
	// askTimeout bounds the wait for a server to say so.
	askTimeout = time.Second
	// stepTimeout bounds one change of the configuration.
	stepTimeout = 10 * time.Second
	// mostAsked bounds how many servers are asked: more are no servers, but an
	// accident.
	mostAsked = 64
)

// Health is what this leader knows of the servers; of none until it has asked
// them, or if autopilot is off.
func (l *Leader) Health() *AutopilotHealth {
	if h := l.health.Load(); h != nil {
		return h
	}
	return &AutopilotHealth{}
}

// initPolicy writes the configured policy into the catalog if that has none.
func (l *Leader) initPolicy(ctx context.Context) error {
	if _, kept := l.cfg.Catalog.Read().Autopilot(nil); kept != nil {
		return nil
	}
	err := l.cfg.Catalog.Apply(ctx, &catalog.SetAutopilot{Config: l.cfg.Autopilot.record(), CAS: true})
	if err == nil || errors.Is(err, catalog.ErrChanged) { // somebody was faster
		return nil
	}
	return fmt.Errorf("keep autopilot's configuration: %w", err)
}

// policy is what autopilot does with the servers at present.
func (l *Leader) policy() Autopilot {
	if _, kept := l.cfg.Catalog.Read().Autopilot(nil); kept != nil {
		return policyOf(kept)
	}
	return l.cfg.Autopilot
}

// autopilot is what is remembered of the servers from one round to the next.
type autopilot struct {
	*Leader
	stable map[string]steady    // by server ID
	absent map[string]time.Time // by server ID: since when no member has it
	said   map[string]string    // by server ID: why it isn't taken, said once
}

// steady is since when a server is healthy, or not.
type steady struct {
	healthy bool
	since   time.Time
}

// runAutopilot keeps the servers' configuration fit until ctx ends, one step at a time.
func (l *Leader) runAutopilot(ctx context.Context) {
	t := &autopilot{Leader: l, stable: make(map[string]steady), absent: make(map[string]time.Time), said: make(map[string]string)}
	for ctx.Err() == nil {
		members, guarded, changed := l.cfg.Members.Servers()
		s := t.survey(ctx, members, guarded)
		t.publish(s)
		t.logRefused(s)
		gap := autopilotGap
		if next, ok := s.decide(); ok && ctx.Err() == nil && t.apply(ctx, next) {
			gap = burst // there may be more to do
		}
		if retry.WaitFor(ctx, gap, nil) && gap == autopilotGap {
			retry.WaitFor(ctx, autopilotEvery-gap, changed)
		}
	}
}

// apply carries out a step and reports whether it is done.
func (t *autopilot) apply(ctx context.Context, next step) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := next.run(ctx, t.cfg.Servers)
	if err != nil {
		if context.Cause(ctx) != context.Canceled {
			t.logger.Warn("servers' configuration not changed, will try again", "server", next.server.ID, "change", next.String(), "err", err)
		}
		return false
	}
	t.logger.Info("servers' configuration changed", "server", next.server.ID, "addr", next.server.Addr, "change", next.String())
	return true
}

// logRefused says of servers of another cluster that they aren't taken.
func (t *autopilot) logRefused(s *survey) {
	for id, h := range s.answers {
		if s.isForeign(h) && t.said[id] != h.ClusterID {
			t.said[id] = h.ClusterID
			t.logger.Warn("server belongs to another cluster and is left alone: to have it join this one, stop it and empty its data_dir",
				"server", id, "cluster", h.ClusterID, "own", s.clusterID)
		}
	}
	maps.DeleteFunc(t.said, func(id string, _ string) bool { _, there := s.member[id]; return !there })
}

// survey asks all servers, those in the configuration and those that could be,
// how they are.
func (t *autopilot) survey(ctx context.Context, members []*Member, guarded bool) *survey {
	conf, committed := t.cfg.Servers.Configuration()
	s := &survey{
		now: time.Now(), self: t.cfg.RaftID, clusterID: t.cfg.ClusterID, expect: t.cfg.Expect, policy: t.policy(),
		conf: slices.SortedFunc(slices.Values(conf), func(a, b RaftServer) int { return cmp.Compare(a.ID, b.ID) }),
		ok:   committed && !guarded,
	}
	if began := t.began.Load(); began != nil {
		s.young = s.now.Sub(*began) < s.policy.ServerStabilizationTime
	}
	s.member = serversOf(members)
	s.answers, s.took = t.pollHealth(ctx, s.addresses())
	s.absent = t.recordAbsent(s)
	s.states = t.states(s)
	return s
}

// serversOf returns the members that are servers by server ID. Of several that
// tell the same ID it is the one that lives.
func serversOf(members []*Member) map[string]*Member {
	servers := make(map[string]*Member)
	for _, m := range members {
		if m.Server == nil || m.Conflict != "" {
			continue
		}
		id := m.raftID()
		if old, ok := servers[id]; !ok || m.Status < old.Status {
			servers[id] = m
		}
	}
	return servers
}

func (m *Member) raftID() string { return cmp.Or(m.Server.RaftID, m.Node.ID) }

// pollHealth asks the servers at the addresses, by server ID, all at once. An answer
// by another server than the one that was meant is none. It returns how long
// each took, too.
func (t *autopilot) pollHealth(ctx context.Context, addresses map[string]string) (map[string]ServerHealth, map[string]time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers, took := make(map[string]ServerHealth), make(map[string]time.Duration)
	var mu sync.Mutex // guards answers and took
	var wg sync.WaitGroup
	for id, addr := range addresses {
		wg.Go(func() {
			began := time.Now()
			h, err := t.cfg.Servers.Health(ctx, addr)
			if err != nil || h.RaftID != id {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[id], took[id] = h, time.Since(began)
		})
	}
	wg.Wait()
	return answers, took
}

// recordAbsent keeps since when each server of the configuration is no member.
func (t *autopilot) recordAbsent(s *survey) map[string]time.Duration {
	absent := make(map[string]time.Duration)
	for _, c := range s.conf {
		if _, ok := s.member[c.ID]; ok {
			continue
		}
		if _, ok := t.absent[c.ID]; !ok {
			t.absent[c.ID] = s.now
		}
		absent[c.ID] = s.now.Sub(t.absent[c.ID])
	}
	maps.DeleteFunc(t.absent, func(id string, _ time.Time) bool { _, still := absent[id]; return !still })
	return absent
}

// states is what is known of each server of the configuration.
func (t *autopilot) states(s *survey) map[string]ServerState {
	states := make(map[string]ServerState, len(s.conf))
	for _, c := range s.conf {
		state := ServerState{ID: c.ID, Address: c.Addr, Voter: c.Voter, Leader: c.ID == s.self, SerfStatus: "none", LastContact: -1}
		if m, ok := s.member[c.ID]; ok {
			state.Name, state.SerfStatus = m.Node.Node, m.Status.String()
			state.Version, state.Meta = m.Server.Meta["version"], m.Server.Meta
		}
		if h, ok := s.answers[c.ID]; ok {
			state.LastContact, state.LastIndex, state.LastTerm = h.LastContact, h.LastIndex, h.LastTerm
		}
		state.Healthy = s.isHealthy(c.ID)
		was, known := t.stable[c.ID]
		if !known || was.healthy != state.Healthy {
			was = steady{state.Healthy, s.now}
			t.stable[c.ID] = was
		}
		state.StableSince = was.since
		states[c.ID] = state
	}
	maps.DeleteFunc(t.stable, func(id string, _ steady) bool { _, there := states[id]; return !there })
	return states
}

// publish makes Health say what the survey found.
func (t *autopilot) publish(s *survey) {
	h := &AutopilotHealth{Healthy: len(s.conf) > 0}
	healthy := 0
	for _, c := range s.conf {
		state := s.states[c.ID]
		h.Servers = append(h.Servers, state)
		h.Healthy = h.Healthy && state.Healthy
		if state.Healthy && c.Voter {
			healthy++
		}
	}
	h.FailureTolerance = max(0, healthy-majority(s.voters()))
	t.health.Store(h)
}

// step is one change of the servers' configuration.
type step struct {
	server RaftServer
	remove bool
	why    string
}

// String says what changes, and why.
func (s step) String() string {
	switch {
	case s.remove:
		return "removed: " + s.why
	case s.server.Voter:
		return "votes: " + s.why
	}
	return "does not vote: " + s.why
}

func (s step) run(ctx context.Context, servers Servers) error {
	if s.remove {
		return servers.Remove(ctx, s.server.ID)
	}
	return servers.Add(ctx, s.server)
}

// addresses are those of the servers to be asked, by server ID: where gossip
// says that they are, else where the configuration does.
func (s *survey) addresses() map[string]string {
	addresses := make(map[string]string)
	for _, c := range s.conf {
		addresses[c.ID] = c.Addr
	}
	for _, id := range slices.Sorted(maps.Keys(s.member)) {
		m := s.member[id]
		_, known := addresses[id]
		if m.Status == Alive && m.Server.Addr != "" && (known || len(addresses) < mostAsked) {
			addresses[id] = m.Server.Addr
		}
	}
	return addresses
}

// sameText compares IDs.
func sameText(a, b string) bool { return a != "" && strings.EqualFold(a, b) }
