package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"meibo/cluster/consensus"
	"meibo/cluster/retry"
)

// Several servers that were told to begin a cluster together find out among
// themselves which of them does. It is one alone: consensus begins with that
// one and gives the others their votes. So there must never be two, whatever
// part of the others each of them sees, and whoever crashes in between.
//
// The server with the lowest ID of those that it sees proposes itself to all of
// them. Each must be empty, see nobody that the proposer doesn't, and promise
// itself: it keeps that on disk and promises itself to nobody else. With all
// the promises the proposer begins. A promise ends when the proposer says that
// it has not begun and proposes nothing at present, never by itself: so when a
// server begins, everyone it saw is bound to it and stays so. Of two that begin
// neither has seen the other, nor has anybody seen both.
//
// A promise to a host that went for good, in the moment between, would last for
// ever: after promiseLimit without a sign of it in gossip it ends, and that is
// said. A proposal lasts roundTimeout; only one that is stopped in the midst
// of it for all of promiseLimit, and goes on after, could then begin all the
// same.
const (
	roundEvery   = time.Second
	roundTimeout = 5 * time.Second
	promiseLimit = 10 * time.Minute
)

// What servers without a cluster ask of one another.
const (
	pathBootstrapAsk   = "/internal/bootstrap/ask"
	pathBootstrapEnded = "/internal/bootstrap/ended"
)

// bootstrapPaths are those that [bootstrap.answer] knows.
var bootstrapPaths = map[string]bool{pathBootstrapAsk: true, pathBootstrapEnded: true}

// bootstrapAsk is a proposal.
type bootstrapAsk struct {
	// Probe says that it isn't one yet: no promise is given, but it is said
	// whether it would be.
	Probe  bool     `codec:"Probe,omitempty"`
	From   promise  `codec:"From"`
	Expect int      `codec:"Expect"`
	Seen   []string `codec:"Seen"` // IDs of all servers that the proposer sees, its own included
}

// bootstrapAnswer is the answer to it.
type bootstrapAnswer struct {
	RaftID    string `codec:"RaftID"`
	Empty     bool   `codec:"Empty"`
	ClusterID string `codec:"ClusterID,omitempty"`
	Expect    int    `codec:"Expect"`        // 0: it waits to be added
	Promised  bool   `codec:"Promised"`      // or would be
	Why       string `codec:"Why,omitempty"` // not
}

// bootstrapEnded is what a proposer says of its proposals.
type bootstrapEnded struct {
	NodeID string `codec:"NodeID"`
	RaftID string `codec:"RaftID"`
	// Ended says that it has not begun, and that no proposal is under way: no
	// promise that was given before this was asked will be made use of.
	Ended bool `codec:"Ended"`
}

// bootstrapMember is a server of this datacenter that gossip says is alive.
type bootstrapMember struct {
	Name, NodeID, RaftID string
	Addr                 string // of link, which is that of Raft too
	Expect               int    // 0: it is not told to begin with others
	NonVoter             bool
	InCluster            bool // it says that it follows a catalog
}

// bootstrapReplica is consensus as it is seen from here.
type bootstrapReplica interface {
	Empty() bool
	ClusterID() string
	Bootstrap([]consensus.Server) error
}

// bootstrapConfig is what a bootstrap needs.
type bootstrapConfig struct {
	// Self is this server. With an Expect of 0 it never proposes, and waits to
	// be added.
	Self    bootstrapMember
	Members func() ([]bootstrapMember, <-chan struct{})
	// Call asks the host at addr.
	Call    func(ctx context.Context, addr, path string, in, out any) error
	Replica bootstrapReplica
	Store   promiseStore
	Logger  *slog.Logger
}

// bootstrap is a server's part in finding out who begins. Its methods may be
// called at any time.
type bootstrap struct {
	cfg    bootstrapConfig
	logger *slog.Logger
	round  chan struct{} // a token for who proposes or decides on a promise

	mu     sync.Mutex // guards following
	to     promise    // zero: promised to nobody
	serial uint64     // rises with each promise, the same one again included
	open   bool       // a proposal of this server is under way
	seen   time.Time  // when whom it is promised to was last seen
	why    string     // what it waits for
}

func newBootstrap(cfg bootstrapConfig) (*bootstrap, error) {
	if cfg.Self.RaftID == "" || cfg.Members == nil || cfg.Call == nil || cfg.Replica == nil || cfg.Store == nil {
		return nil, errors.New("bootstrap: needs an ID, members, a way to call them, consensus, and a place for its promise")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	to, err := cfg.Store.load()
	if err != nil {
		return nil, err
	}
	return &bootstrap{cfg: cfg, logger: cfg.Logger, round: make(chan struct{}, 1), to: to, seen: time.Now()}, nil
}

// Run proposes, and follows up what was promised, until this server belongs to
// a cluster or ctx ends. It returns nil.
func (b *bootstrap) Run(ctx context.Context) error {
	for ctx.Err() == nil && b.cfg.Replica.ClusterID() == "" {
		_, changed := b.cfg.Members()
		b.settle(ctx)
		why := b.propose(ctx)
		if why != "" && b.seesCluster() {
			why = "waiting for the leader of the one that is there to add this server"
		}
		b.waitsFor(why)
		// Two that propose at the same time shouldn't go on doing so.
		timer := time.NewTimer(roundEvery/2 + rand.N(roundEvery))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-changed:
			timer.Stop()
			retry.Wait(ctx, roundEvery/10+rand.N(roundEvery/10))
		}
		timer.Stop()
	}
	if ctx.Err() == nil {
		b.waitsFor("")
		b.keep(promise{})
	}
	return nil
}

// Waiting says what this server waits for, empty if it doesn't.
func (b *bootstrap) Waiting() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

// Promised is the ID of the other server that this one is promised to, empty if
// there is none.
func (b *bootstrap) Promised() string {
	if to := b.promisedTo(); to.RaftID != b.cfg.Self.RaftID {
		return to.RaftID
	}
	return ""
}

// waitsFor says what it waits for, once.
func (b *bootstrap) waitsFor(why string) {
	b.mu.Lock()
	same := b.why == why
	b.why = why
	b.mu.Unlock()
	if !same && why != "" {
		b.logger.Info("this server belongs to no cluster yet: "+why, "bootstrap_expect", b.cfg.Self.Expect)
	}
}

// view returns all servers that are seen by ID, this one included.
func (b *bootstrap) view() map[string]bootstrapMember {
	members, _ := b.cfg.Members()
	seen := map[string]bootstrapMember{b.cfg.Self.RaftID: b.cfg.Self}
	for _, m := range members {
		if m.RaftID != b.cfg.Self.RaftID {
			seen[m.RaftID] = m
		}
	}
	return seen
}

// seesCluster reports whether a server is seen that belongs to a cluster.
func (b *bootstrap) seesCluster() bool {
	members, _ := b.cfg.Members()
	return slices.ContainsFunc(members, func(m bootstrapMember) bool { return m.InCluster })
}

// propose is one attempt to begin. It returns what keeps this server from it,
// or empty if it has begun.
func (b *bootstrap) propose(ctx context.Context) (why string) {
	seen := b.view()
	if why := b.notYet(seen); why != "" {
		return why
	}
	// Promises are asked for once they can be had: one that is given binds.
	if why := b.collect(ctx, seen, true); why != "" {
		return why
	}
	if why := b.openRound(); why != "" {
		return why
	}
	defer b.closeRound()
	began := time.Now()
	if why := b.collect(ctx, seen, false); why != "" {
		return why
	}
	// Who was stopped for long, or has been told to end, doesn't begin.
	if ctx.Err() != nil || time.Since(began) >= roundTimeout {
		return "the proposal took too long"
	}
	return b.begin(seen)
}

// notYet says why this server doesn't propose itself.
func (b *bootstrap) notYet(seen map[string]bootstrapMember) string {
	own := b.cfg.Self
	if own.Expect == 0 {
		return "waiting for a leader to add this server"
	}
	count, lowest := 0, own.RaftID
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		m := seen[id]
		switch {
		case m.Expect == 0 || m.NonVoter:
			continue
		case m.Expect != own.Expect:
			return disagree(m.Name, m.Expect, own.Name, own.Expect)
		}
		count++
		lowest = min(lowest, id)
	}
	switch {
	case count < own.Expect:
		return fmt.Sprintf("waiting for servers: %d of %d are there", count, own.Expect)
	case lowest != own.RaftID:
		return "waiting for " + seen[lowest].Name + " to begin"
	case own.NonVoter:
		return "waiting for a leader to add this server, which never votes"
	}
	return ""
}

func disagree(host string, theirs int, own string, ours int) string {
	return fmt.Sprintf("%s has bootstrap_expect = %d and %s has %d: no cluster begins until they agree", host, theirs, own, ours)
}

// openRound begins a proposal by promising this server to itself.
func (b *bootstrap) openRound() (why string) {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	if to := b.promisedTo(); to.RaftID != "" && to.RaftID != b.cfg.Self.RaftID {
		return "promised to " + to.Name + ", waiting to hear whether it began"
	}
	if !b.cfg.Replica.Empty() {
		return "this server has files of a cluster: waiting for its leader"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.open = b.self(), true
	return ""
}

func (b *bootstrap) self() promise {
	return promise{NodeID: b.cfg.Self.NodeID, RaftID: b.cfg.Self.RaftID, Name: b.cfg.Self.Name, Addr: b.cfg.Self.Addr}
}

func (b *bootstrap) promisedTo() promise {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.to
}

// closeRound ends a proposal, begun or not.
func (b *bootstrap) closeRound() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.open = promise{}, false
}

// collect asks all for their promise, or whether they would give it, and returns
// why one of them doesn't.
func (b *bootstrap) collect(ctx context.Context, seen map[string]bootstrapMember, probe bool) (why string) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	ask := bootstrapAsk{Probe: probe, From: b.self(), Expect: b.cfg.Self.Expect, Seen: slices.Sorted(maps.Keys(seen))}
	var first sync.Once // one reason is enough
	var wg sync.WaitGroup
	for id, m := range seen {
		if id == b.cfg.Self.RaftID {
			continue
		}
		wg.Go(func() {
			if refusal := b.askOne(ctx, m, ask); refusal != "" {
				first.Do(func() { why = refusal })
				cancel()
			}
		})
	}
	wg.Wait()
	return why
}

func (b *bootstrap) askOne(ctx context.Context, m bootstrapMember, ask bootstrapAsk) (why string) {
	var a bootstrapAnswer
	err := b.cfg.Call(ctx, m.Addr, pathBootstrapAsk, ask, &a)
	switch {
	case err != nil:
		return fmt.Sprintf("%s does not answer: %v", m.Name, err)
	case a.RaftID != m.RaftID:
		return fmt.Sprintf("%s is another server than gossip says", m.Name)
	case !a.Empty:
		return fmt.Sprintf("%s belongs to a cluster already (%s): waiting for its leader to add this server", m.Name, cmp.Or(a.ClusterID, "of an unknown ID"))
	case a.Expect != 0 && a.Expect != ask.Expect:
		return disagree(m.Name, a.Expect, b.cfg.Self.Name, ask.Expect)
	case !a.Promised:
		return fmt.Sprintf("%s holds back: %s", m.Name, a.Why)
	}
	return ""
}

// begin begins the cluster, with all that expect one.
func (b *bootstrap) begin(seen map[string]bootstrapMember) (why string) {
	var servers []consensus.Server
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if m := seen[id]; m.Expect != 0 && !m.NonVoter {
			servers = append(servers, consensus.Server{ID: id, Addr: m.Addr, Voter: true})
		}
	}
	if err := b.cfg.Replica.Bootstrap(servers); err != nil {
		b.logger.Error("cluster not begun", "err", err)
		return err.Error()
	}
	b.logger.Info("cluster begun by this server", "servers", len(servers), "cluster", b.cfg.Replica.ClusterID())
	return ""
}

// answer answers what another server asks; decode reads the question.
func (b *bootstrap) answer(_ context.Context, path string, decode func(any) error) (any, error) {
	switch path {
	case pathBootstrapAsk:
		var ask bootstrapAsk
		if err := decode(&ask); err != nil {
			return nil, fmt.Errorf("read proposal: %w", err)
		}
		return b.consider(ask), nil
	case pathBootstrapEnded:
		return b.ended(), nil
	}
	return nil, fmt.Errorf("nothing is answered at %s", path)
}

// consider decides on a proposal. The promise is on disk before it is given.
func (b *bootstrap) consider(ask bootstrapAsk) bootstrapAnswer {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	a := bootstrapAnswer{
		RaftID: b.cfg.Self.RaftID, Expect: b.cfg.Self.Expect,
		Empty: b.cfg.Replica.Empty(), ClusterID: b.cfg.Replica.ClusterID(),
	}
	if !a.Empty {
		return a
	}
	if a.Why = b.holdsBack(ask); a.Why != "" {
		return a
	}
	if ask.Probe {
		a.Promised = true
		return a
	}
	if err := b.keep(ask.From); err != nil {
		b.logger.Error("server can't promise itself to who begins the cluster", "err", err)
		a.Why = err.Error()
		return a
	}
	// A leader may have called on this server meanwhile.
	a.Empty = b.cfg.Replica.Empty()
	a.Promised = a.Empty
	return a
}

// holdsBack says why this server doesn't promise itself to who asks.
func (b *bootstrap) holdsBack(ask bootstrapAsk) string {
	if ask.From.RaftID == "" || ask.From.RaftID == b.cfg.Self.RaftID {
		return "the proposal names no other server"
	}
	if to := b.promisedTo(); to.RaftID != "" && to.RaftID != ask.From.RaftID {
		return "it is promised to " + to.Name
	}
	if own := b.cfg.Self.Expect; own != 0 && own != ask.Expect {
		return disagree(b.cfg.Self.Name, own, ask.From.Name, ask.Expect)
	}
	seen := b.view()
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if !slices.Contains(ask.Seen, id) {
			return fmt.Sprintf("it sees %s, which %s doesn't", seen[id].Name, ask.From.Name)
		}
	}
	return ""
}

// ended says whether this server's own proposals are over without a beginning.
func (b *bootstrap) ended() bootstrapEnded {
	b.mu.Lock()
	open := b.open
	b.mu.Unlock()
	return bootstrapEnded{NodeID: b.cfg.Self.NodeID, RaftID: b.cfg.Self.RaftID, Ended: !open && b.cfg.Replica.Empty()}
}

// settle asks whom this server is promised to what became of it.
func (b *bootstrap) settle(ctx context.Context) {
	b.mu.Lock()
	to, serial := b.to, b.serial
	b.mu.Unlock()
	if to.RaftID == "" {
		return
	}
	addr := to.Addr
	members, _ := b.cfg.Members()
	for _, m := range members {
		if m.RaftID == to.RaftID || strings.EqualFold(m.NodeID, to.NodeID) {
			addr = m.Addr
			b.mu.Lock()
			b.seen = time.Now()
			b.mu.Unlock()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, roundEvery)
	defer cancel()
	var e bootstrapEnded
	err := b.cfg.Call(ctx, addr, pathBootstrapEnded, struct{}{}, &e)
	// Under another ID it has lost its files, and what it may have begun with them.
	anew := e.RaftID != to.RaftID && strings.EqualFold(e.NodeID, to.NodeID)
	switch {
	case err == nil && (anew || e.RaftID == to.RaftID && e.Ended):
		b.release(serial)
	case err != nil || e.RaftID != to.RaftID:
		b.giveUp(to, serial)
	}
}

// giveUp ends a promise to a host that can't be reached and that gossip has not
// known for long.
func (b *bootstrap) giveUp(to promise, serial uint64) {
	b.mu.Lock()
	gone := time.Since(b.seen)
	b.mu.Unlock()
	if gone < promiseLimit {
		return
	}
	b.logger.Warn("server is promised to a host that went before it said whether it began a cluster: the promise is void",
		"node", to.Name, "addr", to.Addr, "dur", gone.Round(time.Second))
	b.release(serial)
}

// release ends the promise, unless it was given again meanwhile.
func (b *bootstrap) release(serial uint64) {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	b.mu.Lock()
	again := b.serial != serial || b.open
	b.mu.Unlock()
	if again {
		return
	}
	if err := b.keep(promise{}); err != nil {
		b.logger.Warn("promise not taken back yet", "err", err)
	}
}

// keep promises this server to to, on disk first; the zero value to nobody.
func (b *bootstrap) keep(to promise) error {
	if to != b.promisedTo() {
		if err := b.cfg.Store.save(to); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.seen = to, time.Now()
	b.serial++
	return nil
}
