package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

var (
	errNotRunning = errors.New("gossip: not running")
	errRunTwice   = errors.New("gossip: Run was called before")
)

// Gossip is this host's part in the gossip of the cluster. Its methods are safe
// for concurrent use.
type Gossip struct {
	cfg        Config
	logger     *slog.Logger
	self       membership.Node // as it was at the start: its tags change
	transport  *sockets
	inbox      *inbox
	broadcasts *memberlist.TransmitLimitedQueue

	ran     atomic.Bool
	ring    *memberlist.Keyring // set before started is closed
	ml      atomic.Pointer[memberlist.Memberlist]
	rounds  atomic.Pointer[rounds] // set before ml
	started chan struct{}          // closed when ml is there
	dial    chan netip.AddrPort
	joined  chan struct{}
	tell    chan struct{} // has room for one: changedLives has something

	tagMu sync.Mutex // held while the tags are changed; taken before mu

	mu           sync.Mutex // guards following; never held while memberlist is called
	machine      *membership.Machine
	unsaved      bool
	called       map[netip.AddrPort]time.Time
	accused      map[string]time.Time // whom this host itself called dead lately
	changedLives map[string]struct{}  // for OnLife
}

// New checks the configuration, binds, and reads the snapshot of members. Run
// starts it; without Run, Close unbinds.
func New(cfg Config) (*Gossip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	now := time.Now()
	self := membership.Node{ID: cfg.ID, Name: cfg.Name, Datacenter: cfg.Datacenter, Life: uint64(now.UnixMicro())}
	self.Tags = make(map[string]string)
	maps.Copy(self.Tags, cfg.Tags)
	self.Tags[membership.TagID], self.Tags[membership.TagDatacenter] = cfg.ID, cfg.Datacenter
	var err error
	if self.Meta, err = encodeMeta(self.Life, self.Tags); err != nil {
		return nil, err
	}
	transport, err := bind(cfg)
	if err != nil {
		return nil, err
	}
	self.Addr, self.Port = transport.advertise.Addr(), transport.advertise.Port()
	g := &Gossip{
		cfg: cfg, logger: cfg.Logger, self: self, transport: transport, inbox: &inbox{ready: make(chan struct{}, 1)},
		started: make(chan struct{}), dial: make(chan netip.AddrPort, maxDials), joined: make(chan struct{}),
		tell: make(chan struct{}, 1), called: make(map[netip.AddrPort]time.Time), accused: make(map[string]time.Time),
		changedLives: make(map[string]struct{}),
	}
	g.machine = membership.New(now, membership.Config{
		Self: self, ReconnectTimeout: cfg.ReconnectTimeout, TombstoneTimeout: cfg.TombstoneTimeout,
		HoldDown: cfg.Tuning.HoldDown, HoldDownMax: cfg.Tuning.HoldDownMax,
	})
	g.broadcasts = &memberlist.TransmitLimitedQueue{
		RetransmitMult: cfg.Tuning.RetransmitMult,
		NumNodes:       func() int { return len(g.Members().Members()) },
	}
	g.load()
	return g, nil
}

// load has the members be as the snapshot says, and as others told.
func (g *Gossip) load() {
	var s membership.Snapshot
	if g.cfg.Dir != "" {
		var aside string
		var err error
		if s, aside, err = readSnapshot(g.cfg.Dir); err != nil {
			g.logger.Error("gossip: the list of members is damaged and was set aside: members are found by joining", "file", aside, "err", err)
		}
	}
	g.with(func(m *membership.Machine, _ time.Time) {
		if !s.Left || g.cfg.RejoinAfterLeave { // else whom it knew then is no reason to come back
			m.Load(s)
		}
		m.Restore(g.cfg.Lives)
	})
}

// Close unbinds a Gossip that isn't run.
func (g *Gossip) Close() error {
	if g.ran.Swap(true) {
		return nil
	}
	return g.transport.Shutdown()
}

// with gives the members to f, and then does what their rules want done.
func (g *Gossip) with(f func(m *membership.Machine, now time.Time)) {
	g.mu.Lock()
	f(g.machine, time.Now())
	w := g.machine.Publish()
	g.unsaved = g.unsaved || w.Changed
	if w.Met {
		close(g.joined)
	}
	if g.cfg.OnLife != nil {
		for _, id := range w.Lives {
			g.changedLives[id] = struct{}{}
		}
	}
	if len(g.changedLives) > 0 {
		select {
		case g.tell <- struct{}{}:
		default:
		}
	}
	g.mu.Unlock()
	g.do(w)
}

// hasten has memberlist tell what is queued, or is about to be.
func (g *Gossip) hasten() {
	if r := g.rounds.Load(); r != nil {
		r.hasten()
	}
}

// Members returns the members as they are now. It takes no lock.
func (g *Gossip) Members() *membership.Table { return g.machine.Table() }

// Joined is closed when another member has been met for the first time.
func (g *Gossip) Joined() <-chan struct{} { return g.joined }

// LinkRefused says that a host's stream was reset and that its port has refused
// to be dialled for two seconds. That is a confirmed suspicion until the host
// answers a ping again.
func (g *Gossip) LinkRefused(nodeID string) {
	g.with(func(m *membership.Machine, now time.Time) { m.LinkRefused(now, nodeID) })
	g.inbox.wake()
}

// Restore takes what a view's file, or a neighbour's, says of hosts that gossip
// has not heard of.
func (g *Gossip) Restore(lives []membership.Life) {
	g.with(func(m *membership.Machine, _ time.Time) { m.Restore(lives) })
}

// SetTags changes tags of this host; an empty value deletes one. It fails when
// they don't fit, and changes nothing then.
func (g *Gossip) SetTags(tags map[string]string) error {
	g.tagMu.Lock()
	defer g.tagMu.Unlock()
	self := g.Members().Self()
	merged := maps.Clone(self.Tags)
	for k, v := range tags {
		switch {
		case k == membership.TagID || k == membership.TagDatacenter:
			return fmt.Errorf("gossip: tag %q is set by itself", k)
		case v == "":
			delete(merged, k)
		default:
			merged[k] = v
		}
	}
	meta, err := encodeMeta(self.Life, merged)
	if err != nil || meta == self.Meta {
		return err
	}
	g.with(func(m *membership.Machine, _ time.Time) { m.SetTags(merged, meta) })
	if ml := g.ml.Load(); ml != nil {
		g.hasten()
		// A timeout means that nobody took it yet; the next comparison of lists
		// brings it along.
		_ = ml.UpdateNode(tagWait)
	}
	return nil
}
