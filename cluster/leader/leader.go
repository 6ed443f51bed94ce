// Package leader does what falls to the server that leads: it begins the
// catalog's history where there is none, and makes the catalog say of the
// members of the cluster what is known of them.
//
// A member that is alive has a node with serfHealth passing, one that failed
// has it critical, one that left is deregistered with all that is on it; a
// server has the service "consul" besides. The rest of a node's record belongs
// to its agent: a node that exists keeps it.
//
// What is not among the members stays as it is. A member list can be young, or
// half of what it will be, so absence says nothing: whoever reaps a member says
// that it left.
//
// The package is given the catalog and the members; it knows nothing of Raft,
// gossip, HTTP or DNS.
package leader

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"meibo/cluster/catalog"
)

const (
	// DefaultEvery is how often all members are gone through, besides at every
	// change. It is Consul's.
	DefaultEvery = time.Minute
	// retryAfter is how soon a round that failed in part is made again.
	retryAfter = time.Second
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

// Member is a host of the cluster.
type Member struct {
	// Node is the record that the member's node begins with.
	Node   catalog.Node
	Status Status
	// Server says what kind of server the member is; nil: none.
	Server *Server
}

// Server is what a member that is a server says of itself.
type Server struct {
	Port int               // of the service "consul"
	Meta map[string]string // version and the like
}

// Members are the hosts of the cluster, as gossip knows them.
type Members interface {
	// Members returns all of them, and a channel that is closed when that has
	// changed.
	Members() ([]Member, <-chan struct{})
}

// Alone is a cluster of one host.
type Alone Member

// Members implements [Members].
func (a Alone) Members() ([]Member, <-chan struct{}) { return []Member{Member(a)}, nil }

// Reader is one unchanging state of the catalog. A nil watch is passed.
type Reader interface {
	History(ws catalog.Watch) (uint64, catalog.History)
	// LastIndex is the largest index that a client may have been shown.
	LastIndex() uint64
	Node(ws catalog.Watch, name string) (uint64, *catalog.Node)
	NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service)
	NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check)
}

// Catalog is what the leader leads.
type Catalog interface {
	Read() Reader
	// Apply carries out a command and returns when Read shows it. A
	// *[catalog.Error] is a refusal; any other error means that this server
	// may not lead any more.
	Apply(ctx context.Context, body catalog.Body) error
}

// Config is what a Leader needs.
type Config struct {
	Catalog Catalog
	Members Members
	// Every is how often all members are gone through; 0: DefaultEvery.
	Every  time.Duration
	Logger *slog.Logger // nil discards
}

// Leader does a leader's duties for one time of leading.
type Leader struct {
	cfg    Config
	logger *slog.Logger
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Leader, error) {
	if cfg.Catalog == nil || cfg.Members == nil {
		return nil, errors.New("leader: needs a catalog and members")
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
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

// Begin begins a history if the catalog has none, or Anew says so. It is to be
// called by a server that leads and has applied what was committed before.
func (l *Leader) Begin(ctx context.Context, b Beginning) error {
	r := l.cfg.Catalog.Read()
	_, old := r.History(nil)
	if old.ID != "" && !b.Anew {
		return nil
	}
	known := max(r.LastIndex(), b.Known)
	begin := &catalog.BeginHistory{ID: newID(), Base: catalog.NextBase(time.Now(), known), Provisional: b.Provisional}
	if err := l.cfg.Catalog.Apply(ctx, begin); err != nil {
		return fmt.Errorf("begin history %s: %w", begin.ID, err)
	}
	l.logger.Info("catalog history begun", "history", begin.ID, "provisional", b.Provisional, "before", old.ID)
	return nil
}

// newID returns a random UUID (RFC 9562 section 5.4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Run keeps the catalog and the members in agreement until ctx ends. It returns
// nil then, and waits for nothing else.
func (l *Leader) Run(ctx context.Context) error {
	for {
		members, changed := l.cfg.Members.Members()
		wait := l.cfg.Every
		if err := l.reconcile(ctx, members); err != nil && ctx.Err() == nil {
			l.logger.Warn("catalog does not agree with the members yet", "err", err)
			wait = retryAfter
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}
