package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"meibo/cluster/catalog"
	"meibo/cluster/view"
	"meibo/resolver/wire"
)

// patience is how long anything that is waited for may take.
const patience = 8 * time.Minute

// Config is what a process plays: Count hosts from the First on.
type Config struct {
	Fleet              fleet
	First, Count       int
	Servers            []string // link addresses
	Key                []byte
	Unknown, Forwarded float64 // shares of the lookups
	Latency            time.Duration
	Loss               float64
	Memory             int64         // octets that the process is to do with, at the price of processor time
	Late               time.Duration // from then on an answer without a change is wrong
}

// Player is the service that a process offers over net/rpc: hosts, lookups on them, and a judge of the answers.
type Player struct {
	cfg   Config
	hosts []*host
	wires wires
	pool  *pool

	services, unknown, forwarded []question
	truths                       []truth // by service
	changes                      atomic.Pointer[[]*change]
	counts                       counts
	rate                         atomic.Int64            // lookups each second on each host
	up                           atomic.Pointer[[]*host] // those that are asked

	mu   sync.Mutex // guards following, and writes of up and changes
	lags *hdrhistogram.Histogram
}

// None is no argument, or no result.
type None struct{}

// play is the life of a child process: it ends with its standard input.
func play() error {
	server := rpc.NewServer()
	if err := server.Register(new(Player)); err != nil {
		return err
	}
	server.ServeConn(struct {
		io.Reader
		io.Writer
		io.Closer
	}{os.Stdin, os.Stdout, os.Stdin})
	return nil
}

// newHistogram counts microseconds up to ten minutes, to a hundredth.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 2)
}

// Make takes the configuration. It is called once, before all others.
func (p *Player) Make(cfg Config, _ *None) error {
	if err := hugePages(cfg.Memory); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // until the bound: to look through thousands of hosts takes longer than a phase
	debug.SetMemoryLimit(cfg.Memory)
	p.cfg, p.lags, p.truths, p.pool = cfg, newHistogram(), make([]truth, cfg.Fleet.Services), newPool()
	z := newZipf(cfg.Fleet.Services)
	for i := range cfg.Count {
		p.hosts = append(p.hosts, newHost(p, cfg.First+i, z))
	}
	var err error
	for s := range cfg.Fleet.Services {
		p.truths[s].now.Store(cfg.Fleet.all())
		p.services, err = appendQuestion(p.services, serviceName(s)+".service.consul.", err)
	}
	for i := range otherNames {
		p.unknown, err = appendQuestion(p.unknown, "no-"+serviceName(i)+".service.consul.", err)
		p.forwarded, err = appendQuestion(p.forwarded, serviceName(i)+".example.com.", err)
	}
	p.up.Store(new([]*host))
	p.changes.Store(new([]*change))
	for range loaders {
		go p.load() // until the process ends
	}
	return err
}

// hugePages has so much of the heap, in octets, be of huge pages: with small ones most of the time goes by in looking up
// where thousands of hosts' memory is.
func hugePages(size int64) error {
	room := make([]byte, size)
	if err := unix.Madvise(room, unix.MADV_HUGEPAGE); err != nil {
		return fmt.Errorf("ask for huge pages: %w", err)
	}
	debug.FreeOSMemory() // of the addresses alone: none was used yet
	return nil
}

// Some says which hosts are meant: each Step-th.
type Some struct {
	Step   int
	Spread time.Duration // they start evenly within
	Most   int           // that start at the same time; 0: all
}

func (p *Player) some(a Some) (list []*host) {
	for _, h := range p.hosts {
		if h.number%a.Step == 0 {
			list = append(list, h)
		}
	}
	return list
}

// Image has hosts that never ran begin with a file, as those do that are made of an image of a running one: one of them
// learns what there is, the others know of it what they use.
func (p *Player) Image(None, *None) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	one := p.hosts[0]
	if err := one.start(); err != nil {
		return err
	}
	all := make([]int, p.cfg.Fleet.Services)
	for s := range all {
		all[s] = s
	}
	if err := one.knows(ctx, all); err != nil {
		return err
	}
	one.stop()
	one.ended.Wait()
	whole := one.view.Export()
	parts := make(map[string][]catalog.Part)
	for _, part := range whole.Current.Parts {
		parts[part.Service] = append(parts[part.Service], part)
	}
	var making errgroup.Group
	making.SetLimit(runtime.GOMAXPROCS(0))
	for _, h := range p.hosts {
		making.Go(func() (err error) {
			known := view.Export{Current: whole.Current}
			known.Current.Complete, known.Current.Parts = nil, nil
			for _, s := range h.uses {
				known.Current.Complete = append(known.Current.Complete, serviceName(s))
				known.Current.Parts = append(known.Current.Parts, parts[serviceName(s)]...)
			}
			if h.next, err = h.newView(); err == nil {
				h.next.Import(&known, view.FromDisk)
			}
			return err
		})
	}
	return making.Wait()
}

// Start starts hosts, whose lookups begin at once, and returns when each knows all that it uses.
func (p *Player) Start(a Some, _ *None) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list := p.some(a)
	began := time.Now()
	var starting errgroup.Group
	if a.Most > 0 {
		starting.SetLimit(a.Most)
	}
	for i, h := range list {
		time.Sleep(time.Until(began.Add(a.Spread * time.Duration(i) / time.Duration(len(list)))))
		starting.Go(func() error {
			if err := h.start(); err != nil {
				return err
			}
			p.mu.Lock()
			up := append(slices.Clone(*p.up.Load()), h)
			p.up.Store(&up)
			p.mu.Unlock()
			return h.knows(ctx, h.uses)
		})
	}
	return starting.Wait()
}

// Kill ends hosts at once, and prepares their return.
func (p *Player) Kill(a Some, _ *None) error {
	list := p.some(a)
	p.mu.Lock()
	up := slices.DeleteFunc(slices.Clone(*p.up.Load()), func(h *host) bool { return slices.Contains(list, h) })
	p.up.Store(&up)
	p.mu.Unlock()
	var kill errgroup.Group
	kill.SetLimit(2)
	for _, h := range list {
		kill.Go(h.kill)
	}
	return kill.Wait()
}

// Confirmed returns how long after a time each host was told by a server with a leader that it knows all.
func (p *Player) Confirmed(after time.Time, took *[]time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	*took = make([]time.Duration, len(p.hosts))
	errs := make([]error, len(p.hosts))
	var wg sync.WaitGroup
	for i, h := range p.hosts {
		wg.Go(func() {
			errs[i] = h.confirmed(ctx, after)
			(*took)[i] = time.Since(after)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Collect collects garbage, so that it need not be while something is measured: real hosts don't wait for each other's. As
// long as there is room for what a phase makes, nothing is done: it takes half a minute of thousands of hosts; but once, to know what is alive.
func (p *Player) Collect(None, *None) error {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	if known := heap[1].Value.Uint64() > 0; !known || int64(heap[0].Value.Uint64()) > p.cfg.Memory/2 {
		runtime.GC()
	}
	return nil
}

// Lookups sets how often each host is asked, each second.
func (p *Player) Lookups(rate int, _ *None) error {
	p.rate.Store(int64(rate))
	return nil
}

// Change says that an instance of a service begins to pass its check, or ceases to.
type Change struct {
	Service, Instance int
	Up                bool
	At                time.Time // Announce: sent at; Committed: acknowledged at
}

// change is one that hosts have yet to answer with.
type change struct {
	service  int
	name     string // of the service
	node     string // of the instance
	bit      uint64
	up       bool
	sent     time.Time
	arrivals []atomic.Int64 // by host: nanoseconds after it was sent; 0: not yet, or not used there
	users    int
	left     atomic.Int64
	done     chan struct{}
}

// Announce says that a change is about to be written: from now on both answers are right.
func (p *Player) Announce(c Change, _ *None) error {
	n := &change{service: c.Service, name: serviceName(c.Service), node: nodeName(p.cfg.Fleet.node(c.Service, c.Instance)), bit: 1 << c.Instance, up: c.Up, sent: c.At, arrivals: make([]atomic.Int64, len(p.hosts)), done: make(chan struct{})}
	for _, h := range p.hosts {
		if h.isUser(c.Service) {
			n.users++
		}
	}
	n.left.Store(int64(n.users))
	t := &p.truths[c.Service]
	before := t.now.Load()
	t.before.Store(before)
	t.since.Store(1 << 62)
	if c.Up {
		t.now.Store(before | n.bit)
	} else {
		t.now.Store(before &^ n.bit)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := append(slices.Clone(*p.changes.Load()), n)
	p.changes.Store(&list)
	return nil
}

// Spread is how long a change took.
type Spread struct {
	Users, Missing int
	Took           *hdrhistogram.Snapshot // from sending the write to a user's answers
}

// Committed says that the write was acknowledged, and waits until all hosts that use the service answer with it, for half
// a minute at most.
func (p *Player) Committed(c Change, s *Spread) error {
	p.truths[c.Service].since.Store(c.At.UnixNano())
	var n *change
	for _, one := range *p.changes.Load() {
		if one.service == c.Service && one.bit == 1<<c.Instance {
			n = one
		}
	}
	if n == nil {
		return fmt.Errorf("no change of service %d was announced", c.Service)
	}
	if n.users > 0 {
		timer := time.NewTimer(30 * time.Second)
		select {
		case <-n.done:
		case <-timer.C:
		}
		timer.Stop()
	}
	p.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(*p.changes.Load()), func(one *change) bool { return one == n })
	p.changes.Store(&list)
	p.mu.Unlock()
	took := newHistogram()
	for i := range n.arrivals {
		if at := n.arrivals[i].Load(); at > 0 {
			_ = took.RecordValue(max(1, at/1000))
		}
	}
	*s = Spread{Users: n.users, Missing: int(n.left.Load()), Took: took.Export()}
	return nil
}

// isIn reports whether a view has it: only then is it worth a lookup, which alone counts.
func (c *change) isIn(state *view.State) bool {
	instances, _, _ := state.Service(c.name)
	i, ok := slices.BinarySearchFunc(instances, c.node, func(in catalog.Instance, node string) int { return strings.Compare(in.Node.Node, node) })
	return ok && (instances[i].Status() == catalog.Passing) == c.up
}

// look sees which changes the host answers with, now that its view is another one.
func (p *Player) look(h *host, state *view.State) {
	for _, c := range *p.changes.Load() {
		at := &c.arrivals[h.number-p.cfg.First]
		if !h.isUser(c.service) || at.Load() != 0 || !c.isIn(state) {
			continue
		}
		shown, ok := h.lookup(c.service)
		if ok && (shown&c.bit != 0) == c.up && at.CompareAndSwap(0, max(1, int64(time.Since(c.sent)))) && c.left.Add(-1) == 0 {
			close(c.done)
		}
	}
}

// Figures are what a process has seen and used since it began; Lag is since the last call.
type Figures struct {
	Lookups, Late, Failed, Stale, Wrong int64
	Open                                int64         // late ones not answered yet
	CPU                                 time.Duration // of the process
	Heap                                int64         // octets alive in it
	Collections                         int64         // of garbage: while one goes on hosts wait for a processor
	In, Out                             int64         // octets over the hosts' connections
	Lag                                 *hdrhistogram.Snapshot
}

// Figures returns them.
func (p *Player) Figures(_ None, f *Figures) error {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(heap)
	c := &p.counts
	*f = Figures{
		Lookups: c.lookups.Load(), Late: c.late.Load(), Failed: c.failed.Load(), Stale: c.stale.Load(), Wrong: c.wrong.Load(),
		CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()), Heap: int64(heap[0].Value.Uint64()), Collections: int64(heap[1].Value.Uint64()),
		In: p.wires.in.Load(), Out: p.wires.out.Load(),
	}
	f.Open = f.Late - c.answered.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	f.Lag = p.lags.Export()
	p.lags = newHistogram()
	return nil
}

// question is a packed query.
type question []byte

func appendQuestion(list []question, name string, err error) ([]question, error) {
	n, e := wire.ParseName(name)
	if e != nil {
		return list, errors.Join(err, e)
	}
	return append(list, wire.AppendQuery(nil, wire.NewQuery(n, wire.TypeA), uint16(len(list)), true)), err
}
