package fleet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/cluster/clustertest"
)

// TestFleet_AnswersWhileHostsFreeze stops the processes of the leader, a follower and an agent, and lets them go on: the
// others take no notice but leaving the instance out, and whoever wakes tells nothing that has passed meanwhile.
func TestFleet_AnswersWhileHostsFreeze(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.start()
		agent, writer := f.agents()[3], f.agents()[0]
		turns := [][]func() *fleetHost{{f.leader, func() *fleetHost { return agent }}, {f.follower}}
		asleep := 6 * time.Second
		if hosttest.Verifying() {
			asleep = 30 * time.Second
			turns = [][]func() *fleetHost{{f.leader}, {f.follower}, {func() *fleetHost { return agent }}}
		}
		var same, back []time.Duration
		for i, turn := range turns {
			var hosts []*fleetHost
			for _, pick := range turn {
				hosts = append(hosts, pick())
			}
			s, b := f.freeze(fmt.Sprint(i), hosts, asleep, writer)
			same, back = append(same, s), append(back, b)
		}
		t.Logf("after a sleep of %v who woke answered as all do after %v, and was itself back in all answers after %v (held down for 5 s)", asleep, same, back)
		if most := slices.Max(same); hosttest.Verifying() && !raceEnabled && most > 5*time.Second {
			t.Errorf("who woke answered otherwise than the others for %v, want ≤ 5 s", most)
		}
		f.client.settled()
		f.client.check()
	})
}

// freeze stops the hosts' daemons for so long while the catalog changes, and wakes them. It returns how long after that
// they answered exactly what was true, and how long until everybody did.
func (f *fleet) freeze(mark string, hosts []*fleetHost, asleep time.Duration, writer *fleetHost) (same, back time.Duration) {
	f.t.Helper()
	node := "frozen-" + mark
	hosttest.Must(f.t, register(writer, node, "192.0.2.1"))
	for _, h := range hosts {
		h.signal(syscall.SIGSTOP)
		f.client.ended(h)
		f.client.apart([]*fleetHost{h}, f.hosts)
	}
	changed := f.agents()[1]
	wrote := hosttest.Eventually(f.t, "writes while hosts sleep", func() error { return register(writer, node, "192.0.2.2") })
	f.t.Logf("%d asleep: a write was through after %v ms", len(hosts), wrote.Milliseconds())
	changed.deregister("api")
	f.client.soak(asleep)

	var reads sync.WaitGroup
	for _, h := range hosts { // what the kernel took for them while they slept is what they see first
		for range 16 {
			reads.Go(func() { f.neverStale(h, node, "192.0.2.2") })
		}
	}
	f.client.soak(100 * time.Millisecond)
	begin := time.Now()
	for _, h := range hosts {
		h.signal(syscall.SIGCONT)
		f.client.began(h)
	}
	for _, h := range hosts {
		reads.Go(func() {
			for time.Since(begin) < 2*time.Second {
				f.neverStale(h, node, "192.0.2.2")
			}
		})
	}
	var most time.Duration
	for _, h := range hosts {
		hosttest.Eventually(f.t, h.name+" answers as the others do", func() error { return f.agree(h, hosts) })
		most = max(most, time.Since(begin))
		f.client.together([]*fleetHost{h}, f.hosts)
	}
	f.client.settled()
	back = time.Since(begin)
	reads.Wait()
	changed.register("api", 8080)
	f.whole()
	f.client.settled()
	return most, back
}

// agree compares the host's answers with those of the hosts that did not sleep, whose instances alone count: who was
// away is held down by the others, and not by itself.
func (f *fleet) agree(h *fleetHost, slept []*fleetHost) error {
	other := f.hosts[slices.IndexFunc(f.hosts, func(o *fleetHost) bool { return !slices.Contains(slept, o) })]
	for _, service := range f.client.services() {
		mine, theirs := f.without(h.lookup(service), slept), f.without(other.lookup(service), slept)
		if mine != theirs {
			return fmt.Errorf("%s: %s says %s, %s says %s", service, h.name, mine, other.name, theirs)
		}
	}
	return nil
}

func (f *fleet) without(got clustertest.Lookup, hosts []*fleetHost) string {
	var list []string
	for _, addr := range got.Addrs {
		if !slices.ContainsFunc(hosts, func(h *fleetHost) bool { return h.addr() == addr.String() }) {
			list = append(list, addr.String())
		}
	}
	slices.Sort(list)
	return fmt.Sprint(list, got.Err)
}

// neverStale reads consistently on the host; an error is allowed, an older value is not.
func (f *fleet) neverStale(h *fleetHost, node, want string) {
	got, err := readConsistent(h, node)
	if err == nil && got != want {
		f.t.Errorf("%s: a consistent read after waking says %s is at %q, want %q", h.name, node, got, want)
	}
}

// register writes an external node into the catalog by the host's API.
func register(h *fleetHost, node, addr string) error {
	return h.call("PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":%q,"Address":%q}`, node, addr), nil)
}

// readConsistent reads an external node's address by the host's API; "" means that there is no such node.
func readConsistent(h *fleetHost, node string) (string, error) {
	return readNode(h, node, "consistent")
}

func readNode(h *fleetHost, node, how string) (string, error) {
	var got struct{ Node *struct{ Address string } }
	err := h.get("/v1/catalog/node/"+node+"?"+how, &got)
	switch {
	case err != nil && strings.Contains(err.Error(), ": 404 "):
		return "", nil
	case err != nil:
		return "", err
	case got.Node == nil:
		return "", nil
	}
	return got.Node.Address, nil
}

// follower is a server that doesn't lead.
func (f *fleet) follower() *fleetHost {
	f.t.Helper()
	leader := f.leader()
	for _, h := range f.servers() {
		if h != leader && h.proc != nil {
			return h
		}
	}
	f.t.Fatal("no follower")
	return nil
}

// TestFleet_AnswersThroughRestarts restarts every daemon, one after the other, while an agent's clients write; and then
// all at once. An instance on a restarting host stays in the answers of all others: a restart is no death.
func TestFleet_AnswersThroughRestarts(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.start()
		w := newWriter(f)
		begin := time.Now()
		var slowest time.Duration
		rounds := times(20)
		for range rounds {
			for _, h := range f.hosts {
				w.avoid(h)
				slowest = max(slowest, f.restart(h))
				if h.server {
					f.healthy(h)
				}
			}
		}
		t.Logf("%d rounds of restarts of %d hosts took %v; the slowest host answered again %v after its end began", rounds, len(f.hosts),
			time.Since(begin).Round(time.Millisecond), slowest.Round(time.Millisecond))
		f.whole()
		w.end(t)
		f.client.settled()

		took := f.restartAll()
		t.Logf("all %d hosts at once: all answer exactly %v after the first SIGTERM, and are one cluster", len(f.hosts), took.Round(time.Millisecond))
		f.client.check()
	})
}

// restart ends the host's daemon with SIGTERM and starts it anew; the truth about its services doesn't change. It
// returns when the host answers again, and how long that took.
func (f *fleet) restart(h *fleetHost) time.Duration {
	f.t.Helper()
	begin := time.Now()
	f.client.state(h, absent)
	f.terminate(h)
	h.start()
	f.client.state(h, either)
	hosttest.Eventually(f.t, h.name+" answers again", func() error { return f.client.exactOn(h) })
	return time.Since(begin)
}

// terminate ends the host's daemon with SIGTERM and tells the load nothing of it.
func (f *fleet) terminate(h *fleetHost) {
	if err := h.proc.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Errorf("%s: its daemon is gone already: %v", h.name, err)
	}
	<-h.proc.Done
	if code := h.proc.ProcessState.ExitCode(); code != 0 {
		f.t.Errorf("%s: after SIGTERM exit code %d", h.name, code)
	}
	h.proc = nil
}

// restartAll restarts all daemons at once.
func (f *fleet) restartAll() time.Duration {
	f.t.Helper()
	begin := time.Now()
	for _, h := range f.hosts {
		f.client.state(h, absent)
	}
	var ends sync.WaitGroup
	for _, h := range f.hosts {
		ends.Go(func() { f.terminate(h) })
	}
	ends.Wait()
	for _, h := range f.hosts {
		h.start()
		f.client.state(h, either)
	}
	f.whole()
	f.client.settled()
	return time.Since(begin)
}

// healthy waits until the server that came back knows a leader and has all writes, and a leader says that all servers
// are well, as an operator does before the next one is restarted.
func (f *fleet) healthy(back *fleetHost) {
	f.t.Helper()
	hosttest.Eventually(f.t, "all servers are well", func() error {
		var leader string
		if err := back.get("/v1/status/leader", &leader); err != nil || leader == "" {
			return fmt.Errorf("%s knows no leader: %v", back.name, err)
		}
		mark := time.Now().Format("150405.000000")
		if err := f.agents()[0].call("PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":"mark","Address":"192.0.2.1","NodeMeta":{"mark":%q}}`, mark), nil); err != nil {
			return err
		}
		hosttest.Eventually(f.t, back.name+" has all writes", func() error {
			var got struct {
				Node *struct{ Meta map[string]string }
			}
			if err := back.get("/v1/catalog/node/mark?stale", &got); err != nil || got.Node == nil || got.Node.Meta["mark"] != mark {
				return fmt.Errorf("%+v, %v", got, err)
			}
			return nil
		})
		var health struct {
			Healthy bool
			Servers []struct {
				Name    string
				Healthy bool
			}
		}
		if err := f.agents()[0].get("/v1/operator/autopilot/health", &health); err != nil {
			return err
		}
		if !health.Healthy || len(health.Servers) != len(f.servers()) {
			return fmt.Errorf("%+v", health)
		}
		return nil
	})
}

// writer writes all the time through an agent that isn't restarting, and tries once more what failed.
type writer struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex // guards following
	through   *fleetHost
	agents    []*fleetHost
	done      int
	retried   []string
	failed    []string
	longest   time.Duration
	longestAt time.Time
}

func newWriter(f *fleet) *writer {
	w := &writer{stop: make(chan struct{}), agents: f.agents(), through: f.agents()[0]}
	w.wg.Go(w.run)
	return w
}

// avoid has the writer use another host than h from now on, and returns when no write is under way there.
func (w *writer) avoid(h *fleetHost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.through == h {
		w.through = w.agents[(slices.Index(w.agents, h)+1)%len(w.agents)]
	}
}

func (w *writer) run() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			w.one(i)
		}
	}
}

func (w *writer) one(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	begin := time.Now()
	write := func() error { return register(w.through, "steady", fmt.Sprintf("192.0.%d.%d", i>>8&255, i&255)) }
	err := write()
	if err != nil {
		w.retried = append(w.retried, fmt.Sprintf("%s after %v: %v", begin.Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), err))
		err = write()
	}
	if err != nil {
		w.failed = append(w.failed, err.Error())
	}
	w.done++
	if took := time.Since(begin); took > w.longest {
		w.longest, w.longestAt = took, begin
	}
}

// end stops the writer and judges it.
func (w *writer) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	t.Logf("%d writes through agents, %d tried twice, %d failed; the longest, at %s, took %v ms", w.done, len(w.retried), len(w.failed),
		w.longestAt.Format("15:04:05.000"), w.longest.Milliseconds())
	if len(w.failed) > 0 {
		t.Errorf("writes failed twice, the first: %s", w.failed[0])
	}
	if len(w.retried) > 0 {
		t.Logf("tried twice, the first: %s", w.retried[0])
	}
}
