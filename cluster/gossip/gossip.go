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
)

var (
	errNotRunning = errors.New("gossip: not running")
	errRunTwice   = errors.New("gossip: Run was called before")
)

// Gossip is this host's part in the gossip of the cluster. Its methods are safe
// for concurrent use.
type Gossip struct {
	cfg       Config
	logger    *slog.Logger
	self      identity
	born      uint64 // this process's life
	transport transporter
	delegate  *delegate
	mail      *mailbox
	lives     sync.Map // node ID: Status

	ran     atomic.Bool
	ring    *memberlist.Keyring // set before started is closed
	ml      atomic.Pointer[memberlist.Memberlist]
	started chan struct{} // closed when ml is there
	dial    chan netip.AddrPort
	joined  chan struct{}
	size    atomic.Int64  // of the cluster, about
	tell    chan struct{} // has room for one: changedLives has something

	tagMu sync.Mutex // held while the tags are changed; taken before mu

	mu           sync.Mutex // guards following
	ledger       *ledger
	changed      chan struct{}
	unsaved      bool
	called       map[netip.AddrPort]time.Time
	changedLives map[string]struct{} // for OnLife
}

// New checks the configuration, binds, and reads the snapshot of members. Run
// starts it; without Run, Close unbinds.
func New(cfg Config) (*Gossip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	now := time.Now()
	tags := maps.Clone(cfg.Tags)
	if tags == nil {
		tags = make(map[string]string)
	}
	tags[tagID], tags[tagDatacenter] = cfg.ID, cfg.Datacenter
	own := meta{life: uint64(now.UnixMicro()), tags: tags}
	encoded, err := own.encode()
	if err != nil {
		return nil, err
	}
	if cfg.transport == nil {
		if cfg.transport, err = bind(cfg); err != nil {
			return nil, err
		}
	}
	g := &Gossip{
		cfg: cfg, logger: cfg.Logger, born: own.life, transport: cfg.transport, mail: newMailbox(),
		started: make(chan struct{}), dial: make(chan netip.AddrPort, maxDials), joined: make(chan struct{}),
		tell: make(chan struct{}, 1), changed: make(chan struct{}), called: make(map[netip.AddrPort]time.Time),
	}
	g.changedLives = make(map[string]struct{})
	if err := g.begin(now, own, encoded); err != nil {
		return nil, errors.Join(err, g.transport.Shutdown())
	}
	return g, nil
}

// begin makes the ledger and what memberlist will call.
func (g *Gossip) begin(now time.Time, own meta, encoded []byte) error {
	ip, port, err := g.transport.FinalAdvertiseAddr("", 0)
	if err != nil {
		return err
	}
	addr, _ := netip.AddrFromSlice(ip)
	g.self = identity{name: g.cfg.Name, id: g.cfg.ID, dc: g.cfg.Datacenter, addr: netip.AddrPortFrom(addr.Unmap(), uint16(port))}
	self := &record{aliveFrom: now}
	self.describe(own)
	self.Name, self.Addr, self.Port = g.self.name, g.self.addr.Addr(), g.self.addr.Port()
	self.Status, self.Since, self.Told, self.ToldAt = Alive, now, Alive, now
	g.ledger = newLedger(self, now, g.cfg.ReconnectTimeout, g.cfg.TombstoneTimeout,
		holdLimits{g.cfg.Tuning.HoldDown, g.cfg.Tuning.HoldDownMax})
	g.delegate = &delegate{self: g.self, keyring: g.cfg.Keyring, mail: g.mail, vet: &vet{byName: make(map[string]*vetted), byID: make(map[string]string)}}
	g.delegate.meta.Store(&encoded)
	g.delegate.casts = &memberlist.TransmitLimitedQueue{
		RetransmitMult: g.cfg.Tuning.RetransmitMult,
		NumNodes:       func() int { return int(g.size.Load()) },
	}
	if g.cfg.Dir == "" {
		return nil
	}
	s, aside, err := readSnapshot(g.cfg.Dir)
	switch {
	case err != nil:
		g.logger.Error("gossip: the list of members is damaged and was set aside: members are found by joining", "file", aside, "err", err)
	case s.Left && !g.cfg.RejoinAfterLeave:
		// It left: whom it knew then is no reason to come back.
	default:
		g.with(func(l *ledger, now time.Time) { l.load(now, s) })
	}
	return nil
}

// Close unbinds a Gossip that isn't run.
func (g *Gossip) Close() error {
	if g.ran.Swap(true) {
		return nil
	}
	return g.transport.Shutdown()
}

// with gives the ledger to f, and then does what it wants done.
func (g *Gossip) with(f func(l *ledger, now time.Time)) {
	g.mu.Lock()
	f(g.ledger, time.Now())
	out := g.publish()
	g.mu.Unlock()
	g.carry(out)
}

// publish makes changes seen. It is called with mu held, and takes no other
// lock than that of vet.
func (g *Gossip) publish() outbox {
	out := g.ledger.takeOut()
	for id := range out.lives {
		life := g.ledger.life(id)
		if old, _ := g.lives.Swap(id, life); old == life {
			continue
		}
		if g.cfg.OnLife != nil {
			g.changedLives[id] = struct{}{}
		}
	}
	for name := range out.names {
		if r := g.ledger.byName[name]; r != nil {
			g.delegate.vet.put(r)
		} else if name != g.self.name {
			g.delegate.vet.drop(name)
		}
	}
	if out.changed {
		g.size.Store(int64(len(g.ledger.byName) + 1))
		b := g.ledger.hearsay(time.Now()).encode()
		g.delegate.hearsay.Store(&b)
		close(g.changed)
		g.changed = make(chan struct{})
		g.unsaved = true
	}
	if len(g.changedLives) > 0 {
		select {
		case g.tell <- struct{}{}:
		default:
		}
	}
	return out
}

// Members returns all members sorted by name, this host among them, and a
// channel that is closed when that has changed.
func (g *Gossip) Members() ([]Member, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.members(), g.changed
}

// Member returns the member of a name.
func (g *Gossip) Member(name string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if name == g.self.name {
		return g.ledger.self.Member, true
	}
	if r := g.ledger.byName[name]; r != nil {
		return r.Member, true
	}
	return Member{}, false
}

// Local returns this host.
func (g *Gossip) Local() Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.self.Member
}

// Life returns what is known of a host's life. Reaped counts as Left. It takes
// no lock.
func (g *Gossip) Life(nodeID string) Status {
	if nodeID == g.self.id {
		return Alive
	}
	if s, ok := g.lives.Load(nodeID); ok {
		return s.(Status)
	}
	return NeverSeen
}

// Braking reports whether this host suspects itself, and takes out nobody.
func (g *Gossip) Braking() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.brake.on
}

// Joined is closed when another member has been met for the first time.
func (g *Gossip) Joined() <-chan struct{} { return g.joined }

// LinkRefused says that a host's stream was reset and that its port has refused
// to be dialled for two seconds. That is a confirmed claim until the host
// answers a ping again.
func (g *Gossip) LinkRefused(nodeID string) {
	g.with(func(l *ledger, now time.Time) { l.refused(now, nodeID) })
	g.mail.poke()
}

// RestoreLife takes what a view's file, or a neighbour's, says of a host that
// gossip has not heard of.
func (g *Gossip) RestoreLife(nodeID, _ string, s Status, since time.Time) {
	g.with(func(l *ledger, _ time.Time) { l.restore(nodeID, s, since) })
}

// SetTags changes tags of this host; an empty value deletes one. It fails when
// they don't fit, and changes nothing then.
func (g *Gossip) SetTags(tags map[string]string) error {
	g.tagMu.Lock()
	defer g.tagMu.Unlock()
	merged := maps.Clone(g.Local().Tags)
	for k, v := range tags {
		switch {
		case k == tagID || k == tagDatacenter:
			return fmt.Errorf("gossip: tag %q is set by itself", k)
		case v == "":
			delete(merged, k)
		default:
			merged[k] = v
		}
	}
	if maps.Equal(merged, g.Local().Tags) {
		return nil
	}
	encoded, err := meta{life: g.born, tags: merged}.encode()
	if err != nil {
		return err
	}
	g.delegate.meta.Store(&encoded)
	g.with(func(l *ledger, now time.Time) {
		l.self.Tags = merged
		l.out.touch(l.self)
		l.out.event(now, Updated, l.self, "")
	})
	if ml := g.ml.Load(); ml != nil {
		// A timeout means that nobody took it yet; the next comparison of lists
		// brings it along.
		_ = ml.UpdateNode(tagWait)
	}
	return nil
}
