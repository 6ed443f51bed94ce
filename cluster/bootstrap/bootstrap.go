// Package bootstrap has the servers that were told to begin a cluster together
// find out which of them does. DESIGN.md has the rules.
package bootstrap

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

	"meibo/cluster/retry"
)

// Bounds of a proposal and of a vote, see DESIGN.md.
const (
	roundEvery   = time.Second
	roundTimeout = 5 * time.Second
	voteLimit    = 10 * time.Minute
)

// What servers without a cluster ask of one another.
const (
	pathPropose = "/internal/bootstrap/ask"
	pathOutcome = "/internal/bootstrap/ended"
)

// Paths are those that [Bootstrap.Answer] knows.
var Paths = []string{pathPropose, pathOutcome}

// proposal asks for a vote.
type proposal struct {
	// Probe says that it isn't one yet: no vote is given, but it is said
	// whether it would be.
	Probe  bool     `codec:"Probe,omitempty"`
	From   Vote     `codec:"From"`
	Expect int      `codec:"Expect"`
	Seen   []string `codec:"Seen"` // IDs of all servers that the proposer sees, its own included
}

// reply is the answer to a proposal.
type reply struct {
	RaftID    string `codec:"RaftID"`
	Empty     bool   `codec:"Empty"`
	ClusterID string `codec:"ClusterID,omitempty"`
	Expect    int    `codec:"Expect"`        // 0: it waits to be added
	Promised  bool   `codec:"Promised"`      // or would be
	Why       string `codec:"Why,omitempty"` // not
}

// outcome is what a proposer says of its proposals.
type outcome struct {
	NodeID string `codec:"NodeID"`
	RaftID string `codec:"RaftID"`
	// Ended says that it has not begun, and that no proposal is under way: no
	// vote that was given before this was asked will be made use of.
	Ended bool `codec:"Ended"`
}

// Member is a server of this datacenter that gossip says is alive.
type Member struct {
	Name, NodeID, RaftID string
	Addr                 string // of link, which is that of Raft too
	Expect               int    // 0: it is not told to begin with others
	NonVoter             bool
	InCluster            bool // it says that it follows a catalog
}

// Voter is a server that a cluster begins with.
type Voter struct{ ID, Addr string }

// Replica is consensus as it is seen from here.
type Replica interface {
	Empty() bool
	ClusterID() string
	Bootstrap([]Voter) error
}

// Config is what a bootstrap needs.
type Config struct {
	// Self is this server. With an Expect of 0 it never proposes, and waits to
	// be added.
	Self    Member
	Members func() ([]Member, <-chan struct{})
	// Call asks the host at addr.
	Call    func(ctx context.Context, addr, path string, in, out any) error
	Replica Replica
	Store   VoteStore
	Logger  *slog.Logger
}

// Bootstrap is a server's part in finding out who begins. Its methods may be
// called at any time, by several goroutines at once.
type Bootstrap struct {
	cfg    Config
	logger *slog.Logger
	round  chan struct{} // a token for who proposes or decides on a vote

	mu     sync.Mutex // guards following
	to     Vote       // zero: for nobody
	serial uint64     // rises with each vote, the same one again included
	open   bool       // a proposal of this server is under way
	seen   time.Time  // when whom it has voted for was last seen
	why    string     // what it waits for
}

// New reads the vote that Config.Store keeps. It returns an error if something
// that it needs is missing, or if the vote can't be read.
func New(cfg Config) (*Bootstrap, error) {
	if cfg.Self.RaftID == "" || cfg.Members == nil || cfg.Call == nil || cfg.Replica == nil || cfg.Store == nil {
		return nil, errors.New("bootstrap: needs an ID, members, a way to call them, consensus, and a place for its vote")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	to, err := cfg.Store.Load()
	if err != nil {
		return nil, err
	}
	return &Bootstrap{cfg: cfg, logger: cfg.Logger, round: make(chan struct{}, 1), to: to, seen: time.Now()}, nil
}

// Run proposes, and asks what became of its vote, until this server belongs to
// a cluster or ctx ends. It returns nil.
func (b *Bootstrap) Run(ctx context.Context) error {
	for ctx.Err() == nil && b.cfg.Replica.ClusterID() == "" {
		_, changed := b.cfg.Members()
		b.followUp(ctx)
		why := b.propose(ctx)
		if why != "" && b.seesCluster() {
			why = "waiting for the leader of the one that is there to add this server"
		}
		b.setWaiting(why)
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
		b.setWaiting("")
		b.cast(Vote{})
	}
	return nil
}

// Waiting says what this server waits for, empty if it doesn't.
func (b *Bootstrap) Waiting() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

// VotedFor is the ID of the other server that this one has voted for, empty if
// there is none.
func (b *Bootstrap) VotedFor() string {
	if to := b.votedFor(); to.RaftID != b.cfg.Self.RaftID {
		return to.RaftID
	}
	return ""
}

// setWaiting keeps what it waits for, and says it once.
func (b *Bootstrap) setWaiting(why string) {
	b.mu.Lock()
	same := b.why == why
	b.why = why
	b.mu.Unlock()
	if !same && why != "" {
		b.logger.Info("this server belongs to no cluster yet: "+why, "bootstrap_expect", b.cfg.Self.Expect)
	}
}

// servers returns all that are seen by ID, this one included.
func (b *Bootstrap) servers() map[string]Member {
	members, _ := b.cfg.Members()
	seen := map[string]Member{b.cfg.Self.RaftID: b.cfg.Self}
	for _, m := range members {
		if m.RaftID != b.cfg.Self.RaftID {
			seen[m.RaftID] = m
		}
	}
	return seen
}

// seesCluster reports whether a server is seen that belongs to a cluster.
func (b *Bootstrap) seesCluster() bool {
	members, _ := b.cfg.Members()
	return slices.ContainsFunc(members, func(m Member) bool { return m.InCluster })
}

// propose is one attempt to begin. It returns what keeps this server from it,
// or empty if it has begun.
func (b *Bootstrap) propose(ctx context.Context) (why string) {
	seen := b.servers()
	if why := b.notYet(seen); why != "" {
		return why
	}
	// Votes are asked for once they can be had: one that is given binds.
	if why := b.gather(ctx, seen, true); why != "" {
		return why
	}
	if why := b.openRound(); why != "" {
		return why
	}
	defer b.closeRound()
	began := time.Now()
	if why := b.gather(ctx, seen, false); why != "" {
		return why
	}
	// Who was stopped for long, or has been told to end, doesn't begin.
	if ctx.Err() != nil || time.Since(began) >= roundTimeout {
		return "the proposal took too long"
	}
	return b.begin(seen)
}

// notYet says why this server doesn't propose itself.
func (b *Bootstrap) notYet(seen map[string]Member) string {
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

// openRound begins a proposal with this server's own vote.
func (b *Bootstrap) openRound() (why string) {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	if to := b.votedFor(); to.RaftID != "" && to.RaftID != b.cfg.Self.RaftID {
		return "voted for " + to.Name + ", waiting to hear whether it began"
	}
	if !b.cfg.Replica.Empty() {
		return "this server has files of a cluster: waiting for its leader"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.open = b.self(), true
	return ""
}

func (b *Bootstrap) self() Vote {
	return Vote{NodeID: b.cfg.Self.NodeID, RaftID: b.cfg.Self.RaftID, Name: b.cfg.Self.Name, Addr: b.cfg.Self.Addr}
}

func (b *Bootstrap) votedFor() Vote {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.to
}

// closeRound ends a proposal, begun or not.
func (b *Bootstrap) closeRound() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.open = Vote{}, false
}

// gather asks all for their vote, or whether they would give it, and returns
// why one of them doesn't.
func (b *Bootstrap) gather(ctx context.Context, seen map[string]Member, probe bool) (why string) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	ask := proposal{Probe: probe, From: b.self(), Expect: b.cfg.Self.Expect, Seen: slices.Sorted(maps.Keys(seen))}
	var first sync.Once // one reason is enough
	var wg sync.WaitGroup
	for id, m := range seen {
		if id == b.cfg.Self.RaftID {
			continue
		}
		wg.Go(func() {
			if refusal := b.request(ctx, m, ask); refusal != "" {
				first.Do(func() { why = refusal })
				cancel()
			}
		})
	}
	wg.Wait()
	return why
}

func (b *Bootstrap) request(ctx context.Context, m Member, ask proposal) (why string) {
	var a reply
	err := b.cfg.Call(ctx, m.Addr, pathPropose, ask, &a)
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
		return fmt.Sprintf("%s does not vote: %s", m.Name, a.Why)
	}
	return ""
}

// begin begins the cluster, with all that expect one.
func (b *Bootstrap) begin(seen map[string]Member) (why string) {
	var servers []Voter
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if m := seen[id]; m.Expect != 0 && !m.NonVoter {
			servers = append(servers, Voter{ID: id, Addr: m.Addr})
		}
	}
	if err := b.cfg.Replica.Bootstrap(servers); err != nil {
		b.logger.Error("cluster not begun", "err", err)
		return err.Error()
	}
	b.logger.Info("cluster begun by this server", "servers", len(servers), "cluster", b.cfg.Replica.ClusterID())
	return ""
}

// Answer answers what another server asks at the path; decode reads the question.
func (b *Bootstrap) Answer(_ context.Context, path string, decode func(any) error) (any, error) {
	switch path {
	case pathPropose:
		var ask proposal
		if err := decode(&ask); err != nil {
			return nil, fmt.Errorf("read proposal: %w", err)
		}
		return b.decide(ask), nil
	case pathOutcome:
		return b.ended(), nil
	}
	return nil, fmt.Errorf("nothing is answered at %s", path)
}

// decide decides on a proposal. The vote is on disk before it is given.
func (b *Bootstrap) decide(ask proposal) reply {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	a := reply{
		RaftID: b.cfg.Self.RaftID, Expect: b.cfg.Self.Expect,
		Empty: b.cfg.Replica.Empty(), ClusterID: b.cfg.Replica.ClusterID(),
	}
	if !a.Empty {
		return a
	}
	if a.Why = b.refusal(ask); a.Why != "" {
		return a
	}
	if ask.Probe {
		a.Promised = true
		return a
	}
	if err := b.cast(ask.From); err != nil {
		b.logger.Error("server can't vote for who begins the cluster", "err", err)
		a.Why = err.Error()
		return a
	}
	// A leader may have called on this server meanwhile.
	a.Empty = b.cfg.Replica.Empty()
	a.Promised = a.Empty
	return a
}

// refusal says why this server doesn't vote for who asks.
func (b *Bootstrap) refusal(ask proposal) string {
	if ask.From.RaftID == "" || ask.From.RaftID == b.cfg.Self.RaftID {
		return "the proposal names no other server"
	}
	if to := b.votedFor(); to.RaftID != "" && to.RaftID != ask.From.RaftID {
		return "it has voted for " + to.Name
	}
	if own := b.cfg.Self.Expect; own != 0 && own != ask.Expect {
		return disagree(b.cfg.Self.Name, own, ask.From.Name, ask.Expect)
	}
	seen := b.servers()
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if !slices.Contains(ask.Seen, id) {
			return fmt.Sprintf("it sees %s, which %s doesn't", seen[id].Name, ask.From.Name)
		}
	}
	return ""
}

// ended says whether this server's own proposals are over without a beginning.
func (b *Bootstrap) ended() outcome {
	b.mu.Lock()
	open := b.open
	b.mu.Unlock()
	return outcome{NodeID: b.cfg.Self.NodeID, RaftID: b.cfg.Self.RaftID, Ended: !open && b.cfg.Replica.Empty()}
}

// followUp asks whom this server has voted for what became of it.
func (b *Bootstrap) followUp(ctx context.Context) {
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
	var e outcome
	err := b.cfg.Call(ctx, addr, pathOutcome, struct{}{}, &e)
	// Under another ID it has lost its files, and what it may have begun with them.
	anew := e.RaftID != to.RaftID && strings.EqualFold(e.NodeID, to.NodeID)
	switch {
	case err == nil && (anew || e.RaftID == to.RaftID && e.Ended):
		b.revoke(serial)
	case err != nil || e.RaftID != to.RaftID:
		b.expire(to, serial)
	}
}

// expire ends a vote for a host that can't be reached and that gossip has not
// known for long.
func (b *Bootstrap) expire(to Vote, serial uint64) {
	b.mu.Lock()
	gone := time.Since(b.seen)
	b.mu.Unlock()
	if gone < voteLimit {
		return
	}
	b.logger.Warn("server voted for a host that went before it said whether it began a cluster: the vote is void",
		"node", to.Name, "addr", to.Addr, "dur", gone.Round(time.Second))
	b.revoke(serial)
}

// revoke ends the vote, unless it was given again meanwhile.
func (b *Bootstrap) revoke(serial uint64) {
	b.round <- struct{}{}
	defer func() { <-b.round }()
	b.mu.Lock()
	again := b.serial != serial || b.open
	b.mu.Unlock()
	if again {
		return
	}
	if err := b.cast(Vote{}); err != nil {
		b.logger.Warn("vote not taken back yet", "err", err)
	}
}

// cast votes for to, on disk first; the zero value is for nobody.
func (b *Bootstrap) cast(to Vote) error {
	if to != b.votedFor() {
		if err := b.cfg.Store.Save(to); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.seen = to, time.Now()
	b.serial++
	return nil
}
