package clustertest

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/memnet"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "the one seed to simulate; 0: others, until the time is over")
	stepsFlag    = flag.String("steps", "", "of the seed's schedule only these steps, as \"0.2,1.0\"; empty: all")
	simulateFlag = flag.Duration("simulate", 30*time.Second, "how long to simulate")
)

// A schedule is what befalls a cluster: steps in order of time, in episodes. Each
// episode ends when all faults are over and every host answers what is true.
type schedule struct {
	seed            uint64
	servers, agents int
	episodes        [][]step
}

// step is a fault that lasts for a while, or a change.
type step struct {
	id        string        // the episode, and its number in it
	at, lasts time.Duration // after the episode's begin
	kind      kind
	host      int // of all
	other     int
	loss      float64
	later     time.Duration // what clocks gain
	service   string
}

type kind string

const (
	cutOff    kind = "cut off from all"
	cutPair   kind = "cut off from another, one way"
	splitOff  kind = "cut off with others"
	lossy     kind = "loses packets of all"
	paused    kind = "frozen"
	killed    kind = "killed"
	powerless kind = "without power"
	torn      kind = "killed in mid-write"
	wiped     kind = "killed, and its disk lost"
	diskFull  kind = "cannot write to its disk"
	restarted kind = "restarted"
	// Of all servers, or of all hosts.
	mostLost  kind = "is the one server that keeps its disk"
	allLost   kind = "and all servers lose their disks"
	dark      kind = "and all others have no power, and later clocks"
	registers kind = "registers"
	leaves    kind = "deregisters"
	flaps     kind = "has its check flap"
)

func (s step) String() string {
	text := fmt.Sprintf("after %v host %d", s.at, s.host)
	switch s.kind {
	case registers, leaves, flaps:
		return fmt.Sprintf("%s %s %s", text, s.kind, s.service)
	case cutPair, splitOff:
		text += fmt.Sprintf(" (with %d)", s.other)
	case lossy:
		text += fmt.Sprintf(" (%.2f)", s.loss)
	case dark:
		text += fmt.Sprintf(" (%v)", s.later)
	}
	return fmt.Sprintf("%s: %s for %v", text, s.kind, s.lasts)
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d servers, %d agents", s.seed, s.servers, s.agents)
	for _, step := range slices.Concat(s.episodes...) {
		fmt.Fprintf(&b, "\n  %s: %v", step.id, step)
	}
	return b.String()
}

// command is what plays the schedule again.
func (s schedule) command() string {
	var ids []string
	for _, step := range slices.Concat(s.episodes...) {
		ids = append(ids, step.id)
	}
	return fmt.Sprintf("go test ./cluster/clustertest -run TestSimulate -seed %d -steps %s", s.seed, strings.Join(ids, ","))
}

// only leaves of the schedule the steps of those ids.
func (s schedule) only(ids []string) schedule {
	for i, steps := range s.episodes {
		s.episodes[i] = slices.DeleteFunc(steps, func(one step) bool { return !slices.Contains(ids, one.id) })
	}
	return s
}

// newSchedule makes one from a seed.
func newSchedule(seed uint64) schedule {
	dice := rand.New(rand.NewPCG(seed, 2))
	s := schedule{seed: seed, servers: 3, agents: 3 + dice.IntN(4)}
	hosts := s.servers + s.agents
	faults := []kind{cutOff, cutOff, cutPair, splitOff, lossy, paused, killed, killed, powerless, wiped, torn, diskFull, restarted}
	changes := []kind{registers, registers, leaves, flaps, flaps}
	for episode := range 3 {
		var steps []step
		lost := false // one disk in an episode: two of three are the catalog
		if dice.IntN(4) == 0 {
			lost = true
			steps = append(steps, step{
				kind: []kind{mostLost, allLost, dark}[dice.IntN(3)], at: spread(dice, 30*time.Second), lasts: spread(dice, 40*time.Second),
				host: dice.IntN(s.servers), later: spread(dice, 60*24*time.Hour),
			})
		}
		for range 1 + dice.IntN(4) {
			one := step{
				kind: faults[dice.IntN(len(faults))], at: spread(dice, 30*time.Second), lasts: spread(dice, 40*time.Second),
				host: dice.IntN(hosts), other: dice.IntN(hosts), loss: dice.Float64() * 0.3,
			}
			if one.kind == wiped && lost {
				one.kind = killed
			}
			lost = lost || one.kind == wiped
			steps = append(steps, one)
		}
		for range dice.IntN(6) {
			steps = append(steps, step{
				kind: changes[dice.IntN(len(changes))], at: spread(dice, 60*time.Second), host: dice.IntN(hosts),
				service: []string{"web", "api", "db", "new", "newer"}[dice.IntN(5)],
			})
		}
		slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
		for i := range steps {
			steps[i].id = fmt.Sprintf("%d.%d", episode, i)
		}
		s.episodes = append(s.episodes, steps)
	}
	return s
}

// spread is a time up to most, short ones as likely as long ones.
func spread(dice *rand.Rand, most time.Duration) time.Duration {
	d := most >> dice.IntN(8)
	return (d/2 + time.Duration(dice.Int64N(int64(d/2)))).Round(time.Millisecond)
}

// simulation is a cluster to which a schedule happens.
type simulation struct {
	*Cluster
	touched map[*Host]bool // in this episode
	busy    map[*Host]bool // by a fault that is not over
	full    map[*Host]bool // whose disk fails
	history *history
	stop    func()        // ends the clients
	skipped time.Duration // while all were without power
}

// play plays the schedule and returns how long that took the cluster.
func (s schedule) play(t *testing.T) (lived time.Duration) {
	r := new(history)
	Run(t, Options{Servers: s.servers, Agents: s.agents, Seed: s.seed, Disks: true, Every: 50 * time.Millisecond}, func(c *Cluster) {
		began := time.Now()
		sim := &simulation{Cluster: c, history: r}
		c.StartAll()
		sim.stop = c.clients(r)
		c.ends = append(c.ends, func() { sim.stop() })
		time.Sleep(3 * time.Second) // until all of that is on disk
		for _, steps := range s.episodes {
			sim.episode(steps)
		}
		lived = time.Since(began) - sim.skipped
	})
	r.check(t, porcupine.Ok)
	return lived
}

// event is the begin of a step, or its end.
type event struct {
	at time.Duration
	do func()
}

func (s *simulation) episode(steps []step) {
	s.Helper()
	s.touched, s.busy, s.full = map[*Host]bool{}, map[*Host]bool{}, map[*Host]bool{}
	begin := time.Now()
	var events []event
	for _, one := range steps {
		events = append(events, event{one.at, func() {
			if end := s.begin(one); end != nil {
				events = append(events, event{one.at + one.lasts, end})
			}
		}})
	}
	for len(events) > 0 {
		i := 0
		for j := range events {
			if events[j].at < events[i].at {
				i = j
			}
		}
		next := events[i]
		events = slices.Delete(events, i, i+1)
		if d := next.at - time.Since(begin); d > 0 {
			time.Sleep(d)
		}
		next.do()
	}
	s.rest()
}

// touch has the judge look away from what a fault does to a host: from what the host
// answers, but that it does, and from what others answer of it.
func (s *simulation) touch(h *Host) {
	s.touched[h] = true
	s.Judge.TurnAll(h.Name, Either)
	s.Judge.Apart([]string{h.Name}, names(s.Hosts))
	if len(s.touched) > len(s.Hosts)/4 || s.among(s.Servers()) > 1 { // others may doubt themselves, or not hear of changes
		s.Judge.Apart(names(s.Hosts), names(s.Hosts))
		for _, h := range s.Hosts { // and then who isn't touched is dead to the others, and so to itself
			s.Judge.TurnAll(h.Name, Either)
		}
	}
}

// among counts those of the hosts that were touched.
func (s *simulation) among(hosts []*Host) (n int) {
	for _, h := range hosts {
		if s.touched[h] {
			n++
		}
	}
	return n
}

// begin begins a step and returns what ends it.
func (s *simulation) begin(one step) (end func()) {
	h, other := s.Hosts[one.host], s.Hosts[one.other]
	switch one.kind {
	case registers, leaves, flaps:
		s.change(one, h)
		return nil
	case lossy:
		s.Judge.Apart(names(s.Hosts), names(s.Hosts))
		s.Between(s.Hosts, s.Hosts, memnet.Path{Loss: one.loss, Jitter: 5 * time.Millisecond})
		return s.Net.Heal
	case mostLost, allLost:
		return s.loseServers(one, h)
	case dark:
		return s.darken(one)
	}
	if s.busy[h] || !h.IsUp() {
		return nil
	}
	free := s.occupy(h)
	switch one.kind {
	case cutOff:
		s.touch(h)
		s.Cable(h, true)
		return func() { s.Cable(h, false); free() }
	case cutPair:
		s.touch(h)
		s.touch(other)
		s.Toward([]*Host{h}, []*Host{other}, memnet.Path{Cut: true})
		freeOther := s.occupy(other)
		return func() { s.Toward([]*Host{h}, []*Host{other}, memnet.Path{}); free(); freeOther() }
	case splitOff:
		group := slices.Compact([]*Host{h, other, s.Hosts[(one.host+1)%len(s.Hosts)]})
		for _, g := range group {
			s.touch(g)
		}
		freeGroup := s.occupy(group...)
		s.Between(group, But(s.Hosts, group...), memnet.Path{Cut: true})
		return func() { s.Between(group, But(s.Hosts, group...), memnet.Path{}); free(); freeGroup() }
	case paused:
		s.touch(h)
		h.Pause()
		s.Judge.TurnAll(h.Name, Either)
		return func() {
			if h.life.Load() != nil {
				h.Resume()
				s.Judge.TurnAll(h.Name, Either)
			}
			free()
		}
	case diskFull:
		s.touch(h)
		h.BreakDisk()
		s.full[h] = true
		return func() { h.MendDisk(); delete(s.full, h); free() }
	}
	s.touch(h)
	switch one.kind {
	case killed, torn, wiped:
		h.Kill()
	case powerless:
		h.SwitchOff()
	case restarted:
		h.Stop()
	}
	s.Judge.TurnAll(h.Name, Either)
	switch one.kind {
	case wiped:
		h.Wipe()
	case torn:
		h.Tear()
	}
	return func() { s.comeBack(h, one.kind != wiped); free() }
}

// occupy keeps other faults from hosts, but from those that have one already, until the
// fault is over.
func (s *simulation) occupy(hosts ...*Host) (free func()) {
	hosts = slices.DeleteFunc(slices.Clone(hosts), func(h *Host) bool { return s.busy[h] })
	for _, h := range hosts {
		s.busy[h] = true
	}
	return func() {
		for _, h := range hosts {
			delete(s.busy, h)
		}
	}
}

// comeBack starts a host that was down; one that has its disk still answers from it.
func (s *simulation) comeBack(h *Host, hasDisk bool) {
	h.start()
	if hasDisk {
		s.Judge.State(h.Name, Either)
	}
}

// loseServers has all servers die, and their disks lost, or those of all but one: that
// one is told then, as an operator does, that it is all there is.
func (s *simulation) loseServers(one step, h *Host) (end func()) {
	if !s.areWell(s.Servers()) {
		return nil
	}
	free := s.occupy(s.Servers()...)
	for _, server := range s.Servers() {
		s.touch(server)
		server.Kill()
		s.Judge.TurnAll(server.Name, Either)
		if one.kind == allLost || server != h {
			server.Wipe()
		}
	}
	s.history.lost()
	return func() {
		if one.kind == mostLost {
			h.standsAlone()
		}
		for _, server := range s.Servers() {
			s.comeBack(server, one.kind == mostLost && server == h)
		}
		free()
	}
}

// areWell reports whether the hosts run and no fault befalls them.
func (s *simulation) areWell(hosts []*Host) bool {
	return !slices.ContainsFunc(hosts, func(h *Host) bool { return s.busy[h] || !h.IsUp() })
}

// standsAlone has a server that is down begin a catalog from what it has.
func (h *Host) standsAlone() {
	h.c.Helper()
	dir := filepath.Join(h.dir, "data", "raft")
	id, err := os.ReadFile(filepath.Join(dir, "server-id"))
	if errors.Is(err, fs.ErrNotExist) {
		id, err = []byte(h.id()), nil
	}
	if err == nil {
		peers := fmt.Sprintf(`[{"id": %q, "address": "%s:8300", "non_voter": false}]`, strings.TrimSpace(string(id)), h.Addr)
		err = os.WriteFile(filepath.Join(dir, "peers.json"), []byte(peers), 0o600)
	}
	if err != nil {
		h.c.Fatal(err)
	}
}

// darken takes the power of all hosts. When they have it again it is much later.
func (s *simulation) darken(one step) (end func()) {
	if !s.areWell(s.Hosts) {
		return nil
	}
	free := s.occupy(s.Hosts...)
	for _, h := range s.Hosts {
		s.touch(h)
		h.SwitchOff()
		s.Judge.TurnAll(h.Name, Either)
	}
	return func() {
		s.pause(one.later)
		for _, h := range s.Hosts {
			s.comeBack(h, true)
		}
		free()
	}
}

// pause lets time pass in which nobody asks.
func (s *simulation) pause(d time.Duration) {
	s.load.stop()
	s.stop()
	time.Sleep(d)
	s.skipped += d
	s.Load()
	s.stop = s.clients(s.history)
}

// change changes something that a host that runs offers.
func (s *simulation) change(one step, h *Host) {
	if !h.IsUp() || s.full[h] {
		return
	}
	_, offers := h.offers[one.service]
	switch {
	case one.kind == registers && !offers:
		h.Register(one.service, 80)
	case one.kind == leaves && offers:
		h.Deregister(one.service)
	case one.kind == flaps && offers:
		h.SetCheck(one.service, "critical")
		time.Sleep(100 * time.Millisecond)
		h.SetCheck(one.service, "passing")
	default:
		return
	}
	if len(s.touched) > 0 { // who knows when the servers can take it
		s.Judge.Apart(names(s.Hosts), []string{h.Name})
		s.Judge.TurnAll(h.Name, Either)
		s.touched[h] = true
	}
}

// rest waits until all is well after the faults: every host sees every other, all
// answer what is true, and nothing that was acknowledged is missing.
func (s *simulation) rest() {
	s.Helper()
	s.Net.Heal()
	for _, h := range s.Hosts {
		if h.life.Load() == nil {
			h.Start()
		}
	}
	whole := s.Whole()
	for h := range s.touched {
		s.Judge.TurnAll(h.Name, Present)
	}
	for _, h := range s.Hosts {
		s.Judge.TurnAll(h.Name, Present)
	}
	settled := s.Within(30*time.Second, "all hosts answer what is true", func() error {
		for _, h := range s.Hosts {
			if err := s.ExactOn(h); err != nil {
				return err
			}
		}
		return nil
	})
	for _, h := range s.Hosts { // who lost its disk may know nothing until then, and deny nothing
		if !s.Judge.IsServing(h.Name) {
			s.Judge.State(h.Name, Either)
		}
	}
	s.Judge.AllExact()
	s.Judge.Together(names(s.Hosts), names(s.Hosts))
	for i, node := range s.history.present() {
		s.Within(30*time.Second, "all that was acknowledged can be read", func() error {
			return s.history.one(s.Leader(), access{node: node}, clientsOfRest+i)
		})
	}
	// A server whose disk failed looks after it every half minute.
	s.Within(time.Minute, "three servers vote", func() error { return s.voters(3) })
	s.Within(30*time.Second, "every server answers from its own catalog", s.ready)
	time.Sleep(5 * time.Second)
	s.Logf("%d hosts touched: whole after %v, all answers exact %v later", len(s.touched), whole, settled)
}

// ready reports which server doesn't hold the catalog again.
func (s *simulation) ready() error {
	for _, h := range s.Servers() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, info, err := h.Node().Read(ctx, catalog.Stale)
		cancel()
		if err != nil || info.Kept {
			return fmt.Errorf("%s: %+v %w: %v", h.Name, info, err, h.Node().Stats()["raft"])
		}
	}
	return nil
}

// TestSimulate plays schedules from seeds until its time is over. One that fails is
// shortened, and printed; -seed plays it again, and again: in which order goroutines
// run at one instant no seed says.
func TestSimulate(t *testing.T) {
	if testing.Short() && *seedFlag == 0 {
		t.Skip("takes half a minute")
	}
	next := uint64(time.Now().UnixNano()) >> 10 & 0xffffffff
	var lived time.Duration
	played := 0
	for end := time.Now().Add(*simulateFlag); time.Now().Before(end); played++ {
		s := newSchedule(cmp.Or(*seedFlag, next))
		next++
		if *stepsFlag != "" {
			s = s.only(strings.Split(*stepsFlag, ","))
		}
		ok := t.Run(fmt.Sprintf("seed %d", s.seed), func(t *testing.T) { lived += s.play(t) })
		if ok {
			continue
		}
		t.Errorf("fails: %v", s)
		s = s.shortened(t, time.Now().Add(time.Minute))
		t.Errorf("shortened: %v\n%s", s, s.command())
		return
	}
	t.Logf("%d clusters lived %.1f hours", played, lived.Hours())
}

// shortened leaves out of a schedule that fails what it fails without, as far as
// there is time.
func (s schedule) shortened(t *testing.T, end time.Time) schedule {
	for e := len(s.episodes) - 1; e >= 0; e-- {
		for i := len(s.episodes[e]) - 1; i >= 0; i-- {
			if time.Now().After(end) {
				return s
			}
			less := s
			less.episodes = slices.Clone(s.episodes)
			less.episodes[e] = slices.Delete(slices.Clone(s.episodes[e]), i, i+1)
			if !t.Run(fmt.Sprintf("without %d of %d", i, e), func(t *testing.T) { less.play(t) }) {
				s = less
			}
		}
	}
	return s
}
