// Package consensus replicates commands: a log that a majority agrees on,
// kept on disk, and a state machine that follows it. It is hashicorp/raft
// over bbolt, of one server, or of several once it is given a network.
//
// Promises. A command whose Apply returned without error is applied, and is
// found again after this process is killed at any moment. What did not happen
// and what may have happened are told apart: [ErrNoLeader] and [ErrBusy]
// against [ErrUnknownOutcome]. Whatever the disk does, the process lives:
// Raft panics when its stores fail, so a failing call is held until Raft has
// been shut down, and Run returns an error that names the file and the fault.
// The caller then makes a new Replica, with a new state machine, after a
// while; opening it again checks every entry.
//
// The package must not know what it replicates.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// StateMachine is what follows the log. Apply, Snapshot and Restore are never
// called concurrently; writing a snapshot out goes on beside Apply.
type StateMachine interface {
	// Apply carries out the entry at index and returns a reply for whoever
	// proposed it. It must be deterministic. A panic stops this replica, not
	// the process: for logs that can't be followed.
	Apply(index uint64, cmd []byte) any
	// Snapshot captures the present state at once; WriteTo is called later.
	Snapshot() io.WriterTo
	// Restore replaces the state, or changes nothing and returns an error.
	Restore(io.Reader) error
}

// StreamLayer carries Raft's connections. Accept must return only
// connections of authenticated servers.
type StreamLayer interface {
	net.Listener
	Dial(addr string, timeout time.Duration) (net.Conn, error)
}

// OnDamage says what to do about files that are damaged.
type OnDamage uint8

const (
	// Refuse makes Run set log and snapshots aside (FILE.bad-TIME), damaged or
	// not, and return [ErrDamaged] and [ErrIDRetired]. Right for one server of
	// several: it must come back under another ID, or entries that were
	// acknowledged could be voted away.
	Refuse OnDamage = iota
	// BeginAnew sets the damaged files aside (FILE.bad-TIME), says so, and
	// goes on from the newest good snapshot, or with nothing. Right for a
	// single host alone. Entries are lost, so the caller must begin a new
	// history: see [Replica.SetAside].
	BeginAnew
)

// Config configures a Replica. The zero value of every field but StateMachine
// and ID is usable.
type Config struct {
	StateMachine StateMachine
	// ID is this server's, and must stay the same for the life of Dir.
	ID string
	// Addr is where the other servers reach this one; any text without
	// Stream. Default: ID.
	Addr string
	// Dir holds log and snapshots; empty keeps both in memory.
	Dir string
	// Bootstrap makes a cluster if Dir is empty: of Servers, or of this server
	// alone. See [Replica.Bootstrap] for who may.
	Bootstrap bool
	Servers   []Server
	// Recover, if not empty, replaces the cluster's configuration when the
	// files are opened, as peers.json does: for servers whose majority is gone
	// for good. All that recover must be given the same list, stopped before
	// they begin, and begin a new history. See [Replica.Recovered].
	Recover  []Server
	OnDamage OnDamage
	// Removed says that the other servers removed this one, as it knows already:
	// it waits to be added, and Run doesn't end with [ErrRemoved] before a leader
	// has called on it.
	Removed bool
	// Stream connects the servers; nil for a cluster of one, which listens
	// nowhere.
	Stream StreamLayer
	// Address says where a server is now, if that is known better than by the
	// cluster's configuration, which may name a former address. May be nil.
	// It is called often and must not block.
	Address func(id string) (addr string, ok bool)
	// MinFree is how many bytes must be free in Dir for this server to lead
	// and to take writes: what a commit needs must not be what is missing.
	// Default: [DefaultMinFree]. Negative: it isn't looked at.
	MinFree int64

	// Heartbeat, Election and Lease are Raft's timeouts, defaults below.
	Heartbeat, Election, Lease time.Duration
	// SnapshotEvery is after how many entries a snapshot is taken, and
	// TrailingLogs how many are kept behind it for slow followers.
	SnapshotEvery, TrailingLogs uint64

	Logger *slog.Logger // nil discards
}

// Defaults. The timeouts suit servers at most 20 ms apart: with them writes
// are back within 0.7 s of a leader's death, without false elections on a
// machine whose CPUs are all busy.
const (
	DefaultHeartbeat = 250 * time.Millisecond
	DefaultElection  = 250 * time.Millisecond
	DefaultLease     = 150 * time.Millisecond
	// aloneTimeout is in place of all three for a cluster of one: nobody else ever leads
	// it, and Raft looks at its lease that often.
	aloneTimeout         = 2 * time.Second
	DefaultSnapshotEvery = 16384
	DefaultTrailingLogs  = 20480 // must outlast the transfer of a snapshot
	DefaultMinFree       = 64 << 20
	snapshotInterval     = 30 * time.Second
	commitTimeout        = 200 * time.Millisecond // see [Replica.announce]
	snapshotsKept        = 2
)

// Bounds of what may wait to be committed: more of it would wait longer than
// a client does.
const (
	MaxInFlight      = 4096
	MaxInFlightBytes = 64 << 20
	// MaxCommand bounds one command.
	MaxCommand = 8 << 20
	// enqueueTimeout bounds the wait for Raft to take a command.
	enqueueTimeout = 5 * time.Second
)

// Errors of Apply, Barrier and Verify.
var (
	// ErrNoLeader means that this server doesn't lead; the command did not happen.
	ErrNoLeader = errors.New("this server is not the leader")
	// ErrBusy means that too much waits already; the command did not happen.
	ErrBusy = errors.New("too many writes are waiting to be committed")
	// ErrTooLarge means that the command is larger than [MaxCommand].
	ErrTooLarge = fmt.Errorf("command is larger than %d bytes", MaxCommand)
	// ErrDiskFull means that less than Config.MinFree is free; the command did
	// not happen.
	ErrDiskFull = errors.New("too little disk space to take writes")
	// ErrUnknownOutcome means that the command may have happened, or may yet.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
)

// ErrLastVoter means that a server can't be without its vote: no other has one.
var ErrLastVoter = errors.New("a cluster needs at least one server with a vote")

// Errors of Run.
var (
	// ErrDamaged means that log or snapshots are damaged.
	ErrDamaged = errors.New("damaged")
	// ErrInUse means that another process has the directory open.
	ErrInUse = errors.New("in use by another process")
	// ErrRemoved means that the other servers removed this one.
	ErrRemoved = errors.New("this server was removed from the cluster")
	// ErrIDRetired means that the vote of Config.ID went with its files: what
	// this server acknowledged could be voted away if it came back as the same
	// server. Make a Replica with a new ID, and add it as a non-voter.
	ErrIDRetired = errors.New("this server ID lost its Raft files and must not be used again")
	// ErrOtherID means that Dir belongs to a server of another ID.
	ErrOtherID = errors.New("the Raft files belong to another server ID")
)

// errNotRunning means that Run isn't running.
var errNotRunning = errors.New("consensus is not running")

// ErrNotEmpty means that this server has state already, or belongs to a
// cluster: see [Replica.Bootstrap].
var ErrNotEmpty = errors.New("this server belongs to a cluster already")

// Leadership is who leads, as far as this server knows.
type Leadership struct {
	Leading bool // this server does
	// LeaderID and LeaderAddr are empty while no leader is known.
	LeaderID, LeaderAddr string
	Term                 uint64
}

// Replica is this server's part in the consensus. Its methods may be called
// at any time, before Run and after it too: there is no leader then.
type Replica struct {
	cfg     Config
	logger  *slog.Logger
	fsm     *machine
	guard   *guard
	ran     atomic.Bool
	removed atomic.Bool               // Config.Removed, until a leader calls
	raft    atomic.Pointer[raft.Raft] // nil before Run has opened, and after
	opened  chan struct{}             // closed when raft is set
	stream  *stream                   // nil without Config.Stream; set by Run before Raft starts
	commits prometheus.Histogram      // how long writes take
	// Replaced in tests.
	open  func() (*stores, error)
	space func(dir string) (free, total uint64, err error)

	applied       atomic.Uint64
	log           atomic.Pointer[raft.LogStore] // nil while Run isn't running
	settled       atomic.Uint64                 // the last term in which this server led and had caught up
	full          atomic.Pointer[error]         // why there is too little space; nil, or points at nil, if there isn't
	inFlight      admission
	identity      identity
	committedConf committedConfiguration
	reach         reach

	mu        sync.Mutex // guards following
	lead      Leadership
	changed   chan struct{}
	setAside  []string
	recovered bool
	expected  []Server // see addExpected
}

// New checks the configuration. It touches no file and starts nothing.
func New(cfg Config) (*Replica, error) {
	switch {
	case cfg.StateMachine == nil:
		return nil, errors.New("consensus: no state machine")
	case cfg.ID == "":
		return nil, errors.New("consensus: no server ID")
	}
	cfg.setDefaults()
	r := &Replica{cfg: cfg, logger: cfg.Logger, guard: newGuard(), opened: make(chan struct{}), changed: make(chan struct{}), space: diskSpace, commits: newCommits()}
	r.fsm = &machine{sm: cfg.StateMachine, guard: r.guard, applied: &r.applied, committedConf: &r.committedConf}
	r.open = r.openStores
	r.reach.logger = r.logger
	r.removed.Store(cfg.Removed)
	conf := r.raftConfig()
	if err := raft.ValidateConfig(conf); err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	return r, nil
}

func (c *Config) setDefaults() {
	setDefault(&c.Addr, c.ID)
	if c.Stream == nil && c.Heartbeat+c.Election+c.Lease == 0 {
		c.Heartbeat, c.Election, c.Lease = aloneTimeout, aloneTimeout, aloneTimeout
	}
	setDefault(&c.Heartbeat, DefaultHeartbeat)
	setDefault(&c.Election, max(DefaultElection, c.Heartbeat))
	setDefault(&c.Lease, min(DefaultLease, c.Heartbeat))
	setDefault(&c.SnapshotEvery, DefaultSnapshotEvery)
	setDefault(&c.TrailingLogs, DefaultTrailingLogs)
	setDefault(&c.MinFree, DefaultMinFree)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// nudge is by how much the timeouts are longer at the start than configured:
// lowering them makes Raft look at its timer at once. See [Replica.start].
const nudge = time.Millisecond

func (r *Replica) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.cfg.ID)
	c.HeartbeatTimeout = r.cfg.Heartbeat + nudge
	c.ElectionTimeout = r.cfg.Election + nudge
	c.LeaderLeaseTimeout = r.cfg.Lease
	c.CommitTimeout = commitTimeout
	c.SnapshotInterval = snapshotInterval
	c.SnapshotThreshold = r.cfg.SnapshotEvery
	c.TrailingLogs = r.cfg.TrailingLogs
	c.Logger = newLogger(r.logger, r.expectsNoLeader)
	// A server that is removed and shuts itself down would not be waited for.
	c.ShutdownOnRemove = false
	// BatchApplyCh stays off: commands left in that buffer at a shutdown are
	// never answered. Raft batches those that wait to be taken all the same.
	return c
}

// Opened returns a channel that is closed once Run has opened the files: what
// this server belongs to is known then.
func (r *Replica) Opened() <-chan struct{} { return r.opened }

// Leadership returns who leads, and a channel that is closed when that has
// changed. A new leader has not yet applied what its predecessors committed:
// call [Replica.Barrier] first.
func (r *Replica) Leadership() (Leadership, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lead, r.changed
}

// IsLeader reports whether this server leads.
func (r *Replica) IsLeader() bool {
	l, _ := r.Leadership()
	return l.Leading
}

// Applied is the index of the last entry that the state machine has applied.
func (r *Replica) Applied() uint64 { return r.applied.Load() }

// HasApplied reports whether the state machine has applied all that it is given of the
// log up to an index. A new leader's first entry is none of that, so [Replica.Applied]
// may stay behind the last that is committed for good.
func (r *Replica) HasApplied(index uint64) bool {
	applied, log := r.applied.Load(), r.log.Load()
	if applied >= index || log == nil {
		return applied >= index
	}
	given := true // what can't be read is nothing to go by
	err := protect(func() error {
		first, err := (*log).FirstIndex()
		for i := index; err == nil && i > applied && i >= first; i-- { // what is cut off is in a snapshot that was restored
			var l raft.Log
			if err = (*log).GetLog(i, &l); err == nil && (l.Type == raft.LogCommand || l.Type == raft.LogConfiguration) {
				return nil
			}
		}
		given = err != nil
		return err
	})
	return err == nil && !given
}

// SetAside names the files that were damaged and set aside when Run opened
// them, none if all was well. If there are any, entries may be lost: once
// this server leads, the catalog must begin a new history.
func (r *Replica) SetAside() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.setAside)
}

// Stats returns Raft's own figures under the names that Consul shows; nil
// while Run isn't running.
func (r *Replica) Stats() map[string]string {
	rf := r.raft.Load()
	if rf == nil {
		return nil
	}
	return rf.Stats()
}

// Apply commits the command and returns the state machine's reply and the
// index of the entry. On [ErrUnknownOutcome] the command may have happened:
// propose it again only under a request ID that the state machine knows.
// When ctx ends first the command goes on.
func (r *Replica) Apply(ctx context.Context, cmd []byte) (any, uint64, error) {
	if len(cmd) > MaxCommand {
		return nil, 0, ErrTooLarge
	}
	if err := r.lacksSpace(); err != nil && r.IsLeader() {
		return nil, 0, err
	}
	var reply any
	var index uint64
	err := r.propose(ctx, len(cmd), func(rf *raft.Raft) error {
		began := time.Now()
		f := rf.Apply(cmd, enqueueTimeout)
		if err := f.Error(); err != nil {
			return outcome(err)
		}
		if _, lost := f.Response().(unapplied); lost {
			return ErrUnknownOutcome
		}
		r.commits.Observe(time.Since(began).Seconds())
		reply, index = f.Response(), f.Index()
		announce(rf, index)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return reply, index, nil
}

// Barrier waits until all that was committed before is applied here. Only
// the leader can.
func (r *Replica) Barrier(ctx context.Context) error {
	return r.propose(ctx, 0, func(rf *raft.Raft) error {
		err := outcome(rf.Barrier(enqueueTimeout).Error())
		if err == nil {
			announce(rf, rf.CommitIndex())
		}
		return err
	})
}

// announce has followers hear at once that the entry at index is committed. Raft
// tells them with the next entry, or when there was none for commitTimeout; making
// that short has an idle leader wake every server some sixty times a second. So an
// entry without content follows, unless others do.
func announce(rf *raft.Raft, index uint64) {
	if rf.LastIndex() <= index {
		_ = rf.Barrier(enqueueTimeout) // nobody waits for it
	}
}

// Verify asks a majority whether this server still leads. What the state
// machine says after it returned nil holds all that was acknowledged, by any
// server, before it was called. [ErrNoLeader] if it doesn't lead.
func (r *Replica) Verify(ctx context.Context) error {
	since := time.Now()
	for {
		rf := r.raft.Load()
		if rf == nil {
			return ErrNoLeader
		}
		term := rf.CurrentTerm()
		if err := r.commitTerm(ctx, term); err != nil {
			return err
		}
		err := r.propose(ctx, 0, func(rf *raft.Raft) error { return rf.VerifyLeader().Error() })
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("verify leadership: %w", context.Cause(ctx))
		case errors.Is(err, ErrBusy):
			return err
		case err != nil:
			return ErrNoLeader
		}
		// Raft counts answers that were on their way already, even those to
		// what was asked before this process was stopped for a while.
		if rf.CurrentTerm() == term && r.reach.ledSince(r.Servers(), r.cfg.ID, term, since) {
			return nil
		}
	}
}

// commitTerm has a new leader catch up with what its predecessors committed.
func (r *Replica) commitTerm(ctx context.Context, term uint64) error {
	if r.settled.Load() == term {
		return nil
	}
	if err := r.Barrier(ctx); err != nil {
		if errors.Is(err, ErrUnknownOutcome) && ctx.Err() == nil {
			return ErrNoLeader // nothing was asked for that could have an outcome
		}
		return err
	}
	if rf := r.raft.Load(); rf != nil && rf.CurrentTerm() == term && rf.State() == raft.Leader {
		r.settled.Store(term)
	}
	return nil
}

// propose runs f, which waits for Raft, beside the caller, whose ctx may end
// first. f's results must not be read then: they are f's until it returned.
func (r *Replica) propose(ctx context.Context, size int, f func(*raft.Raft) error) error {
	rf := r.raft.Load()
	if rf == nil || rf.State() != raft.Leader {
		return ErrNoLeader
	}
	if err := r.inFlight.enter(size); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer r.inFlight.leave(size)
		done <- f(rf)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
}

// outcome says of Raft's error whether the command happened.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNoLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrBusy
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}
