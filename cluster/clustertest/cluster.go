// Package clustertest runs clusters in fake time: whole cluster.Nodes, as many as
// wanted, in one process on one network in memory, in a bubble of testing/synctest.
// Each host answers lookups by the code that a daemon answers them by; a load asks
// them all the time, and a [Judge] compares what they say with what is true.
//
// What happens in a bubble takes no time of its own, so that a bar in seconds is
// held exactly, on any machine.
package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster"
	"meibo/cluster/agent"
	"meibo/cluster/check"
	"meibo/cluster/clustertest/logtest"
	"meibo/cluster/clustertest/memnet"
	"meibo/cluster/definition"
	"meibo/cluster/gossip"
	"meibo/cluster/membership"
)

// Options say what a cluster is made of.
type Options struct {
	Servers, Agents int
	// Seed is that of the network and of all that a test leaves to chance.
	Seed uint64
	// Disks has hosts keep their data and views over a restart; without it they
	// keep them in memory.
	Disks bool
	// Dir is where disks are, for clusters that go on in another bubble, and there at
	// another time; empty: a folder of this cluster's own.
	Dir string
	// Every is how often the load asks each host for some service; 0: 15 ms.
	Every time.Duration
	// Level is from which on hosts' logs are kept.
	Level slog.Level
	// Edit changes the configuration of a host before each of its starts.
	Edit func(h *Host, cfg *cluster.Config)
}

// key is the secret of the clusters.
var key = []byte("meibo test cluster key 012345678")

// port is where gossip listens on every host.
const gossipPort = 8301

// Cluster is a number of hosts, some of which run.
type Cluster struct {
	*testing.T
	Net   *memnet.Network
	Hosts []*Host
	Judge *Judge

	opts Options
	dir  string
	load *load
	ends []func() // of what looks on
}

// Run runs f with a cluster in a bubble. No host has been started. When f returns
// the load is judged and all hosts are ended; what is left running then fails the
// test.
func Run(t *testing.T, opts Options, f func(c *Cluster)) {
	t.Helper()
	dir := opts.Dir
	if dir == "" {
		dir = folder(t)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{T: t, Net: memnet.New(opts.Seed), Judge: NewJudge(), opts: opts, dir: dir}
		for i := range opts.Servers + opts.Agents {
			h := &Host{c: c, Name: fmt.Sprintf("s%d", i+1), Server: i < opts.Servers, n: i + 1, offers: map[string]definition.Service{}}
			if !h.Server {
				h.Name = fmt.Sprintf("a%d", i+1-opts.Servers)
			}
			h.Addr = netip.AddrFrom4([4]byte{10, 0, byte(h.n >> 8), byte(h.n)})
			c.Hosts = append(c.Hosts, h)
			c.Judge.AddHost(h.Name, h.Addr)
		}
		defer c.end()
		f(c)
		c.check()
	})
}

// folder is one for the disks of hosts, where fsync costs nothing if there is such.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "meibo-cluster-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end ends all that runs.
func (c *Cluster) end() {
	if c.load != nil {
		c.load.stop()
	}
	for _, end := range c.ends {
		end()
	}
	var wg sync.WaitGroup
	for _, h := range c.Hosts {
		if h.Net != nil {
			h.Net.Kill() // nobody waits for anybody
		}
	}
	for _, h := range c.Hosts {
		wg.Go(func() {
			if l := h.life.Load(); l != nil {
				l.end()
			}
			h.ghosts.Wait()
		})
	}
	wg.Wait()
	if c.Failed() {
		c.tailLogs()
	}
}

// tailLogs shows the end of what each host said.
func (c *Cluster) tailLogs() {
	const lines = 25
	for _, h := range c.Hosts {
		said := slices.Collect(strings.Lines(h.Log()))
		c.Logf("%s said last:\n%s", h.Name, strings.Join(said[max(0, len(said)-lines):], ""))
	}
}

// Host is one of a cluster's, running or not.
type Host struct {
	Name   string
	Server bool
	Addr   netip.Addr
	Net    *memnet.Host // of the present or last life; nil before the first

	c      *Cluster
	n      int
	lives  int
	offers map[string]definition.Service
	dir    string               // of the present or last life
	asked  int                  // by the load
	life   atomic.Pointer[life] // nil: it is down
	log    logtest.Text
	ghosts sync.WaitGroup // lives that were killed and have yet to notice
}

// life is a process.
type life struct {
	node   *cluster.Node
	zone   *zone
	paused atomic.Bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// end stops the process in peace.
func (l *life) end() {
	l.cancel()
	l.wg.Wait()
}

// Node is the host's node; nil while it is down.
func (h *Host) Node() *cluster.Node {
	if l := h.life.Load(); l != nil {
		return l.node
	}
	return nil
}

func (h *Host) id() string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", h.n) }

// IsUp reports whether the host's daemon runs and isn't frozen.
func (h *Host) IsUp() bool {
	l := h.life.Load()
	return l != nil && !l.paused.Load()
}

// Log is what the host's daemons have said.
func (h *Host) Log() string { return h.log.String() }

// config is the host's configuration.
func (h *Host) config() cluster.Config {
	var join []string
	for _, o := range h.c.Hosts {
		// Servers name each other, as people write it. For an agent somebody must be
		// there to be asked when no server is.
		if o.Server || !h.Server && o == h.c.Agents()[0] {
			join = append(join, o.Addr.String())
		}
	}
	began := time.Now()
	cfg := cluster.Config{
		NodeName: h.Name, NodeID: h.id(), Address: h.Addr.String(),
		Server: h.Server, Key: key, Network: h.Net, Version: "1.21.0",
		Gossip: gossip.Config{Bind: netip.AddrPortFrom(h.Addr, gossipPort), RetryJoin: join, RetryInterval: time.Second},
		Agent:  agent.Config{Now: func() time.Duration { return time.Since(began) }},
		Logger: slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: h.c.opts.Level})).With("host", h.Name),
	}
	if h.Server {
		cfg.BootstrapExpect = h.c.opts.Servers
	}
	if h.c.opts.Disks {
		cfg.DataDir, cfg.ViewPath = filepath.Join(h.dir, "data"), filepath.Join(h.dir, "view")
		cfg.KeyringPath = filepath.Join(cfg.DataDir, "serf", "local.keyring")
	} else {
		for _, name := range slices.Sorted(maps.Keys(h.offers)) {
			cfg.Agent.Services = append(cfg.Agent.Services, h.offers[name])
		}
	}
	if h.c.opts.Edit != nil {
		h.c.opts.Edit(h, &cfg)
	}
	return cfg
}

// Start starts the host's daemon; its services are to be there soon.
func (h *Host) Start() {
	h.c.Helper()
	h.start()
	h.c.Judge.Began(h.Name)
}

func (h *Host) start() {
	h.c.Helper()
	if h.life.Load() != nil {
		h.c.Fatalf("%s runs already", h.Name)
	}
	if h.dir == "" {
		h.dir = h.nextDir()
	}
	h.lives++
	h.Net = h.c.Net.Host(h.Addr)
	cfg := h.config()
	node, err := cluster.New(cfg)
	if err != nil {
		h.c.Fatal(err)
	}
	l := &life{node: node}
	if l.zone, err = newZone(node, cfg.Logger); err != nil {
		h.c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.wg.Go(func() {
		if err := node.Run(ctx); err != nil {
			h.c.Errorf("%s: %v", h.Name, err)
		}
	})
	l.wg.Go(func() { l.zone.run(ctx) })
	h.life.Store(l)
}

func (h *Host) nextDir() string {
	return filepath.Join(h.c.dir, fmt.Sprintf("%s-%d", h.Name, h.lives+1))
}

// Stop ends the daemon in peace, as SIGTERM does. Its services are gone.
func (h *Host) Stop() {
	h.c.Judge.Ended(h.Name)
	h.stop()
}

func (h *Host) stop() {
	h.life.Swap(nil).end()
}

// stopAll ends all daemons in peace at once; the truth about their services doesn't
// change.
func (c *Cluster) stopAll() {
	var wg sync.WaitGroup
	for _, h := range c.Hosts {
		wg.Go(h.life.Swap(nil).end)
	}
	wg.Wait()
}

// Kill ends the daemon as SIGKILL does; its machine lives, and refuses connections.
func (h *Host) Kill() { h.die((*memnet.Host).Kill) }

// SwitchOff takes the machine's power.
func (h *Host) SwitchOff() { h.die((*memnet.Host).SwitchOff) }

// die ends the life at an instant at which nothing runs. What it does afterwards,
// nobody hears of, and it writes on a disk that nobody reads again.
func (h *Host) die(kill func(*memnet.Host)) {
	h.c.Helper()
	synctest.Wait()
	if h.c.opts.Disks {
		old := h.dir
		h.dir = h.nextDir()
		if err := os.CopyFS(h.dir, os.DirFS(old)); err != nil {
			h.c.Fatal(err)
		}
	}
	h.c.Judge.Ended(h.Name)
	kill(h.Net)
	h.ghosts.Go(h.life.Swap(nil).end)
}

// Restart stops the daemon in peace and starts it again; its services are there all
// the while.
func (h *Host) Restart() {
	h.c.Helper()
	h.c.Judge.State(h.Name, Absent)
	h.stop()
	h.start()
	h.c.Judge.State(h.Name, Either)
}

// Wipe empties the disk of a host that is down.
func (h *Host) Wipe() {
	h.c.Helper()
	if h.life.Load() != nil {
		h.c.Fatalf("%s runs", h.Name)
	}
	h.dir = h.nextDir() + "-wiped"
	clear(h.offers)
	h.c.Judge.Forgets(h.Name)
}

// Dir is where a host that is down has its disk: data, and the file view.
func (h *Host) Dir() string { return h.dir }

// Pause freezes the daemon, as SIGSTOP does: see [memnet.Host.Freeze]. The judge
// counts its services as gone, and doesn't judge what it answers.
func (h *Host) Pause() {
	h.c.Judge.Ended(h.Name)
	h.life.Load().paused.Store(true)
	h.Net.Freeze(true)
}

// Resume has a paused daemon go on.
func (h *Host) Resume() {
	h.life.Load().paused.Store(false)
	h.Net.Freeze(false)
	h.c.Judge.Began(h.Name)
}

// Lookup asks the host for the addresses of a service.
func (h *Host) Lookup(service string) Lookup {
	got := Lookup{Viewer: h.Name, Service: service, Asked: time.Now()}
	if l := h.life.Load(); l == nil {
		got.Err = fmt.Errorf("%s is down", h.Name)
	} else {
		got.Addrs, got.Err = l.zone.lookup(service)
	}
	got.At = time.Now()
	return got
}

// Register makes the host offer a service, checked by a TTL that the test sets.
func (h *Host) Register(service string, port int) {
	h.c.Helper()
	def := definition.Service{Name: service, ID: service, Port: port, Checks: []definition.Check{{
		ID: service + "-up", Status: "passing", Definition: check.Definition{TTL: 10000 * time.Hour},
	}}}
	h.becomes(service, Present, func() error {
		h.offers[service] = def
		return h.Node().Agent().AddService(def, agent.SourceAPI, false)
	})
}

// Deregister ends that.
func (h *Host) Deregister(service string) {
	h.c.Helper()
	h.becomes(service, Absent, func() error {
		delete(h.offers, service)
		return h.Node().Agent().RemoveService(service)
	})
}

// SetCheck gives the service's check a status.
func (h *Host) SetCheck(service, status string) {
	h.c.Helper()
	is := Present
	if status == "critical" {
		is = Absent
	}
	h.becomes(service, is, func() error {
		h.offers[service].Checks[0].Status = status
		return h.Node().Agent().UpdateTTL(service+"-up", status, "")
	})
}

func (h *Host) becomes(service string, is Truth, call func() error) {
	h.c.Helper()
	if err := h.c.Judge.Becomes(service, h.Name, is, call); err != nil {
		h.c.Fatalf("%s: %v", h.Name, err)
	}
}

// Servers are the hosts that are servers.
func (c *Cluster) Servers() []*Host { return c.Hosts[:c.opts.Servers] }

// Agents are the hosts that are no servers.
func (c *Cluster) Agents() []*Host { return c.Hosts[c.opts.Servers:] }

// Host is the host of that name.
func (c *Cluster) Host(name string) *Host {
	c.Helper()
	for _, h := range c.Hosts {
		if h.Name == name {
			return h
		}
	}
	c.Fatalf("no host %s", name)
	return nil
}

// But are the hosts without some.
func But(hosts []*Host, without ...*Host) []*Host {
	return slices.DeleteFunc(slices.Clone(hosts), func(h *Host) bool { return slices.Contains(without, h) })
}

func names(hosts []*Host) []string {
	list := make([]string, 0, len(hosts))
	for _, h := range hosts {
		list = append(list, h.Name)
	}
	return list
}

func addrs(hosts []*Host) []netip.Addr {
	list := make([]netip.Addr, 0, len(hosts))
	for _, h := range hosts {
		list = append(list, h.Addr)
	}
	return list
}

// Between sets what befalls everything between two groups, Toward what befalls it on
// its way from the one to the other.
func (c *Cluster) Between(a, b []*Host, p memnet.Path) { c.Net.SetBoth(addrs(a), addrs(b), p) }
func (c *Cluster) Toward(from, to []*Host, p memnet.Path) {
	c.Net.Set(addrs(from), addrs(to), p)
}

// Cable pulls or plugs a host's cable.
func (c *Cluster) Cable(h *Host, pulled bool) {
	c.Between([]*Host{h}, But(c.Hosts, h), memnet.Path{Cut: pulled})
}

const (
	// look is between two looks at whether a condition holds, and so the precision
	// of what is measured by them.
	look = 10 * time.Millisecond
	// never is when a condition is given up.
	never = 10 * time.Minute
)

// Until waits until there is no error any more and says how long that took.
func (c *Cluster) Until(what string, is func() error) time.Duration {
	c.Helper()
	began := time.Now()
	for {
		err := is()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > never {
			c.Fatalf("never: %s: %v", what, err)
		}
		time.Sleep(look)
	}
}

// Within is Until, and fails the test if it takes longer.
func (c *Cluster) Within(bar time.Duration, what string, is func() error) time.Duration {
	c.Helper()
	took := c.Until(what, is)
	if took > bar {
		c.Errorf("%s: after %v, want within %v", what, took, bar)
	}
	return took
}

// Whole waits until all running hosts see one another alive, and know a leader if
// they are servers.
func (c *Cluster) Whole() time.Duration {
	c.Helper()
	return c.Until("the cluster is whole", func() error {
		for _, h := range c.Hosts {
			if err := h.seesAll(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *Host) seesAll() error {
	if !h.IsUp() {
		return nil
	}
	for _, o := range h.c.Hosts {
		if s := h.MakesOf(o); o.IsUp() && s != membership.Alive {
			return fmt.Errorf("%s has %s for %v", h.Name, o.Name, s)
		}
	}
	if h.Server && h.Node().Leader() == "" {
		return fmt.Errorf("%s knows no leader", h.Name)
	}
	if !h.Node().View().Load().Fresh() {
		return fmt.Errorf("the view of %s is stale", h.Name)
	}
	return nil
}

// MakesOf is what the host makes of another.
func (h *Host) MakesOf(o *Host) membership.Status {
	if n := h.Node(); n != nil {
		if m := n.MemberOf(o.id()); m != nil {
			return m.Status
		}
	}
	return membership.NeverSeen
}

// Leader waits for a server that leads.
func (c *Cluster) Leader() *Host {
	c.Helper()
	var found *Host
	c.Until("a leader", func() error {
		for _, h := range c.Servers() {
			if h.IsUp() && h.Node().Leadership().Leading {
				found = h
				return nil
			}
		}
		return fmt.Errorf("none")
	})
	return found
}

// Follower is a server that runs and doesn't lead.
func (c *Cluster) Follower() *Host {
	c.Helper()
	leader := c.Leader()
	for _, h := range c.Servers() {
		if h != leader && h.IsUp() {
			return h
		}
	}
	c.Fatal("no follower")
	return nil
}

// StartAll starts all hosts, waits until they are a cluster, has them offer
// services ("web" on each agent, "api" on the first two of them, "db" on the first
// server), waits until each answers for all, and begins to ask.
func (c *Cluster) StartAll() {
	c.Helper()
	for _, h := range c.Hosts {
		h.Start()
	}
	took := c.Whole()
	c.Logf("%d hosts are one cluster after %v", len(c.Hosts), took)
	c.Offer()
}

// Offer registers the services and begins to ask for them.
func (c *Cluster) Offer() {
	c.Helper()
	for _, h := range c.Agents() {
		h.Register("web", 80)
	}
	for _, h := range c.Agents()[:min(2, len(c.Agents()))] {
		h.Register("api", 8080)
	}
	c.Servers()[0].Register("db", 5432)
	c.Settled()
	c.Load()
}

// Part cuts a group off from a larger one. What that answers of them is open from
// then on. They themselves, since all but themselves died at once, are to doubt it,
// and to answer with everybody still.
func (c *Cluster) Part(a, b []*Host) {
	c.Judge.Apart(names(b), names(a))
	c.Between(a, b, memnet.Path{Cut: true})
}

// Rejoin mends all paths, and waits until all hosts are one cluster again, and then
// until they answer alike. It returns how long that took.
func (c *Cluster) Rejoin() time.Duration {
	c.Helper()
	c.Net.Heal()
	for _, h := range c.Hosts {
		c.Judge.TurnAll(h.Name, Either)
	}
	whole := c.Whole()
	for _, h := range c.Hosts {
		c.Judge.TurnAll(h.Name, Present)
	}
	c.Judge.Together(names(c.Hosts), names(c.Hosts))
	return whole + c.Settled()
}

// Settled waits until every running host answers exactly what is true now.
func (c *Cluster) Settled() time.Duration {
	c.Helper()
	took := c.SettledOn(c.Hosts)
	c.Judge.AllExact()
	return took
}

// SettledOn is that for some hosts: the others have reasons to answer something else.
func (c *Cluster) SettledOn(hosts []*Host) time.Duration {
	c.Helper()
	return c.Until("hosts answer what is true", func() error {
		for _, h := range hosts {
			if !h.IsUp() {
				continue
			}
			if err := c.ExactOn(h); err != nil {
				return err
			}
		}
		return nil
	})
}

// ExactOn compares all that a host answers with what is true now.
func (c *Cluster) ExactOn(h *Host) error {
	for _, service := range c.Judge.Services() {
		got := h.Lookup(service)
		c.Judge.Note(got)
		if err := c.Judge.Exact(got); err != nil {
			return err
		}
	}
	return nil
}
