// Package leader does what falls to the server that leads: it begins the
// catalog's history where there is none, makes the catalog say of the members
// of the cluster what is known of them, and runs autopilot.
//
// A member that is alive has a node with serfHealth passing, one that failed
// has it critical, one that left is deregistered with all that is on it; a
// server has the service "consul" besides. The rest of a node's record belongs
// to its agent: a node that exists keeps it. Members about which gossip is in
// conflict are left alone.
//
// Absence says little: a member list can be young, or half of what it will be.
// A node that was a member once and has been none for ten minutes of one
// leader's term counts as failed, and its check says since when; after
// ReconnectTimeout it is deregistered. Nothing of that happens while the
// mass-failure guard is on, because this host may be the one that is cut off, or while most
// nodes are absent. Nodes that never were members, external ones among them,
// are nobody's to judge.
//
// The servers' configuration is changed by one step at a time, none while
// the guard is on or the step before isn't committed: see [Leader.Health] and
// decide.
//
// The package is given the catalog, the members and the servers; it knows
// nothing of Raft, gossip, HTTP or DNS.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/retry"
)

const (
	// DefaultEvery is how often all members are gone through, besides at every
	// change. It is Consul's.
	DefaultEvery = time.Minute
	// DefaultReconnectTimeout is how long a node may be absent. It is Consul's.
	DefaultReconnectTimeout = 72 * time.Hour
	// retryAfter is how soon a round that failed in part is made again.
	retryAfter = time.Second
	// burst is the least time between two rounds: what changes within it is
	// one. With many members it is longer, up to slowest, so that going through
	// them takes about one part in restOf of the time.
	burst   = 200 * time.Millisecond
	slowest = time.Second
	restOf  = 20
)

// Status is what is known of a member.
type Status uint8

const (
	// Alive members answer.
	Alive Status = iota
	// Failed members are dead, confirmed.
	Failed
	// Left members went of their own will, or were reaped.
	Left
)

// String is the status in Consul's words.
func (s Status) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Member is a host of the cluster.
type Member struct {
	// Node is the record that the member's node begins with.
	Node   catalog.Node
	Status Status
	// Since is when the status began; zero: unknown, long ago.
	Since time.Time
	// Server says what kind of server the member is; nil: none.
	Server *Server
	// Conflict says in words what makes the member doubtful, two hosts that
	// claim its name or ID for example; empty: nothing.
	Conflict string
}

// Server is what a member that is a server says of itself.
type Server struct {
	Port int               // of the service "consul"
	Meta map[string]string // version and the like
	// RaftID is its ID in the servers' configuration; empty: it says none, yet, and
	// the node's ID is taken. It is another one once the server has lost its Raft files.
	RaftID string
	// Addr is where the other servers reach it, "host:port".
	Addr string
	// Expect is with how many servers it was told that the cluster begins; 0:
	// it wasn't.
	Expect int
	// NonVoter says that the server is never to vote.
	NonVoter bool
}

// Members are the hosts of the cluster, as gossip knows them. Those of whom
// nothing is known yet, and those under suspicion, aren't failed.
type Members interface {
	// Members returns all of them, Servers those that are servers; whether the
	// mass-failure guard is on: so many failed that this host suspects itself; and
	// a channel that is closed when any of that has changed. The members are not
	// modified; those that haven't changed may be the same as before.
	Members() (members []*Member, guarded bool, changed <-chan struct{})
	Servers() (members []*Member, guarded bool, changed <-chan struct{})
	// IsGone reports whether a node ID was a member's that left, was reaped, or
	// gave way to another of its name. Of an ID never seen it says no.
	IsGone(nodeID string) bool
}

// Alone is a cluster of one host.
type Alone Member

// Members implements [Members].
func (a Alone) Members() ([]*Member, bool, <-chan struct{}) {
	return []*Member{(*Member)(&a)}, false, nil
}

// Servers implements [Members].
func (a Alone) Servers() ([]*Member, bool, <-chan struct{}) { return a.Members() }

// IsGone implements [Members].
func (a Alone) IsGone(string) bool { return false }

// Reader is one unchanging state of the catalog. A nil watch is passed.
type Reader interface {
	History(ws catalog.Watch) (uint64, catalog.History)
	// LastIndex is the largest index that a client may have been shown.
	LastIndex() uint64
	Nodes(ws catalog.Watch) (uint64, []*catalog.Node)
	Node(ws catalog.Watch, name string) (uint64, *catalog.Node)
	NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service)
	NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check)
	Autopilot(ws catalog.Watch) (uint64, *catalog.Autopilot)
}

// Catalog is what the leader leads.
type Catalog interface {
	Read() Reader
	// Apply carries out a command and returns when Read shows it. A
	// *[catalog.Error] is a refusal; any other error means that this server
	// may not lead any more. Several calls may be under way at once.
	Apply(ctx context.Context, body catalog.Body) error
}

// Config is what a Leader needs.
type Config struct {
	Catalog Catalog
	Members Members
	// Every is how often all members are gone through; 0: DefaultEvery.
	Every time.Duration
	// ReconnectTimeout is for how long a node that was a member may be none
	// before it is deregistered; 0: DefaultReconnectTimeout.
	ReconnectTimeout time.Duration
	// Autopilot is what autopilot does with the servers where the catalog doesn't say it
	// yet; then it is written there.
	Autopilot Autopilot

	// Servers is the configuration of the servers, for autopilot; nil: it is
	// left alone. The fields that follow are without meaning then.
	Servers Servers
	// RaftID is this server's own ID in it.
	RaftID string
	// ClusterID is what the servers of this cluster say in
	// [ServerHealth.ClusterID]; empty: not compared.
	ClusterID string
	// Expect is how many voters the cluster is to have at least; 0: unknown.
	// Until they are there a server votes as soon as it has caught up.
	Expect int

	Logger *slog.Logger // nil discards
}

// Leader is the leader loop of one time of leading.
type Leader struct {
	cfg    Config
	logger *slog.Logger
	health atomic.Pointer[AutopilotHealth]
	began  atomic.Pointer[time.Time] // when this leader began a history; nil: it didn't
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Leader, error) {
	switch {
	case cfg.Catalog == nil || cfg.Members == nil:
		return nil, errors.New("leader: needs a catalog and members")
	case cfg.Servers != nil && cfg.RaftID == "":
		return nil, errors.New("leader: needs its own server ID for autopilot")
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.ReconnectTimeout <= 0 {
		cfg.ReconnectTimeout = DefaultReconnectTimeout
	}
	cfg.Autopilot.setDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Leader{cfg: cfg, logger: cfg.Logger}, nil
}

// Beginning says whether and how this server may begin a history.
type Beginning struct {
	// Anew asks for a new history even if there is one: entries of it were lost.
	Anew bool
	// Provisional marks the history as one to be dropped at the first join.
	Provisional bool
	// Known is the largest index that clients of this host have been shown
	// otherwise than from the catalog that is led now.
	Known uint64
}

// Begin begins a history if the catalog has none, or Anew says so, and has the
// catalog say what autopilot does with the servers. It is to be
// called by a server that leads and has applied what was committed before.
func (l *Leader) Begin(ctx context.Context, b Beginning) error {
	r := l.cfg.Catalog.Read()
	_, old := r.History(nil)
	if old.ID != "" && !b.Anew {
		return l.initPolicy(ctx)
	}
	known := max(r.LastIndex(), b.Known)
	begin := &catalog.BeginHistory{ID: catalog.NewUUID(), Base: catalog.NextBase(time.Now(), known), Provisional: b.Provisional}
	if err := l.cfg.Catalog.Apply(ctx, begin); err != nil {
		return fmt.Errorf("begin history %s: %w", begin.ID, err)
	}
	now := time.Now()
	l.began.Store(&now)
	l.logger.Info("catalog history begun", "history", begin.ID, "provisional", b.Provisional, "before", old.ID)
	return l.initPolicy(ctx)
}

// Run keeps the catalog and the members in agreement, and runs autopilot,
// until ctx ends. It returns nil when all it started has ended.
func (l *Leader) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.runReconciler(ctx) })
	if l.cfg.Servers != nil {
		wg.Go(func() { l.runAutopilot(ctx) })
	}
	wg.Wait()
	return nil
}

// runReconciler goes through the members whenever they change, and through all of
// them and of the catalog every so often.
func (l *Leader) runReconciler(ctx context.Context) {
	r := newReconciler(l)
	full := time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		members, guarded, changed := l.cfg.Members.Members()
		all := !now.Before(full)
		err := r.round(ctx, members, guarded, all)
		if all {
			full = now.Add(l.cfg.Every)
		}
		next := full
		if err != nil && ctx.Err() == nil {
			l.logger.Warn("catalog does not agree with the members yet", "err", err)
			next = now.Add(retryAfter)
		}
		if retry.Wait(ctx, max(burst, min(restOf*time.Since(now), slowest))) {
			retry.WaitFor(ctx, time.Until(next), changed)
		}
	}
}
