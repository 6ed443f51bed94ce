package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"meibo/bench/report"
	"meibo/bench/servers"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// wrongAfter is how long a change may take to show everywhere: an answer without it is wrong from then on.
const wrongAfter = 3 * time.Second

// calmFor is how long a service that was changed isn't changed again: longer than players wait for hosts to have seen it.
const calmFor = 40 * time.Second

// measurement is one run.
type measurement struct {
	o       options
	f       fleet
	dir     string
	began   time.Time
	servers servers.Cluster
	leader  *servers.Server
	real    *servers.Server // a host that is a process, among those that are played
	crowd   *crowd
	result  result

	rest   float64 // what the servers take when nothing happens, in cores
	down   [][]bool
	calm   []time.Time // by service: when it may be changed again
	random *rand.Rand
}

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(m.began).Seconds(), fmt.Sprintf(format, args...))
}

func (m *measurement) run() (err error) {
	m.random = rand.New(rand.NewPCG(2, 3))
	m.calm = make([]time.Time, m.f.Services)
	m.down = make([][]bool, m.f.Services)
	for s := range m.down {
		m.down[s] = make([]bool, m.f.Each)
	}
	r := &m.result
	r.Options, r.Machine = m.o, report.Machine()
	r.Hosts, r.Services, r.Instances = m.f.Hosts, m.f.Services, m.f.Services*m.f.Each

	m.say("three servers start")
	config := "cache { max_entries = 1 } # lookups that come over the network are answered from the view\n"
	if m.servers, err = servers.Start(m.o.bin, m.dir, config+m.debug()); err != nil {
		return err
	}
	defer m.servers.Kill()
	if m.leader, err = m.servers.Leader(); err != nil {
		return err
	}
	empty := float64(m.leader.Resident())
	total := m.f.Services * m.f.Each
	err = m.profile("fill", func() error {
		return m.leader.Fill(total, m.f.passing, func(done int) {
			if done%max(1, total/4) == 0 {
				m.say("%d of %d instances are registered", done, total)
			}
		})
	})
	if err != nil {
		return err
	}
	r.InstanceKB = (float64(m.leader.Resident()) - empty) / float64(total) / 1024
	m.say("servers that no host has a stream with")
	r.AloneCores = m.cores(m.o.Window)
	m.say("lookups over the network, which no host's cache answers")
	if err := m.direct(); err != nil {
		return err
	}
	for _, phase := range m.phases() {
		m.say("%s", phase.name)
		if err := phase.measure(); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
		if phase.name == m.o.Last {
			break
		}
		if err := m.crowd.tell("Collect", None{}); err != nil {
			return err
		}
	}
	defer m.crowd.stop()
	defer m.real.Kill()
	sum, _, err := m.crowd.figures()
	if err != nil {
		return err
	}
	r.Lookups, r.Failed, r.Stale, r.Wrong = sum.Lookups, sum.Failed, sum.Stale, sum.Wrong
	if err := m.crowd.tell("Lookups", 0); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // a late answer comes by then, or never
	if sum, _, err = m.crowd.figures(); err != nil {
		return err
	}
	r.Failed += sum.Open
	m.say("caches that know TTLs are simulated")
	m.ttls()
	return nil
}

// phase is one of a run's, by the name that -last takes.
type phase struct {
	name    string
	measure func() error
}

// phases are all, in order.
func (m *measurement) phases() []phase {
	r := &m.result
	return []phase{
		{"the fleet starts", func() error { return m.profile("start", m.start) }},
		{"nothing changes", func() error { return m.profile("rest", m.quiet) }},
		{"instances change", func() error { return m.profile("change", m.change) }},
		{"a service that every host uses changes once a second", m.hot},
		{"a tenth of the hosts restart at once", func() error { return m.restart(10, 0, &r.Restart) }},
		{"the whole fleet restarts", func() error { return m.restart(1, m.o.Start, &r.FleetStart) }},
		{"the leader is killed", m.killLeader},
		{"all servers are killed and started", m.killAll},
	}
}

// window measures the servers and the hosts while f runs.
type window struct {
	seconds          float64
	cores            float64 // of the servers
	bytes, pushes    float64 // that the servers sent, each second
	streams          float64
	resident, leader float64 // MiB, at the end
	lookups, failed  int64
	late             int64
	stale, wrong     int64
	hostCPU          time.Duration
	hostIn, hostOut  float64 // octets each second of all
	hostHeap         int64
	collections      int64
	lag              *hdrhistogram.Histogram
}

func (m *measurement) window(f func() error) (w window, err error) {
	before, _, err := m.crowd.figures()
	if err != nil {
		return w, err
	}
	a := readMeter(m.servers, m.leader)
	if err := f(); err != nil {
		return w, err
	}
	b := readMeter(m.servers, m.leader)
	after, lag, err := m.crowd.figures()
	w.seconds = b.at.Sub(a.at).Seconds()
	w.cores = (b.cpu - a.cpu).Seconds() / w.seconds
	w.bytes, w.pushes = (b.bytes-a.bytes)/w.seconds, (b.pushes-a.pushes)/w.seconds
	w.streams, w.resident, w.leader = b.streams, b.resident/(1<<20), b.first/(1<<20)
	w.lookups, w.failed, w.late = after.Lookups-before.Lookups, after.Failed-before.Failed, after.Late-before.Late
	w.stale, w.wrong = after.Stale-before.Stale, after.Wrong-before.Wrong
	w.hostCPU, w.hostHeap = after.CPU-before.CPU, after.Heap
	w.hostIn, w.hostOut = float64(after.In-before.In)/w.seconds, float64(after.Out-before.Out)/w.seconds
	w.lag, w.collections = lag, after.Collections-before.Collections
	return w, err
}

func (m *measurement) start() (err error) {
	links := m.servers.Links()
	if m.o.OneServer {
		links = []string{m.leader.Addr + ":8300"}
	}
	m.crowd, err = playHosts(Config{
		Fleet: m.f, Servers: links, Key: servers.Key, Unknown: m.o.Unknown, Forwarded: m.o.Forwarded,
		Latency: m.o.Latency, Loss: m.o.Loss, Late: wrongAfter, Memory: int64(m.o.Memory) << 30 / int64(m.o.Processes),
	}, m.o.Processes)
	if err != nil {
		return err
	}
	began := time.Now()
	if m.o.Image {
		if err := m.crowd.tell("Image", None{}); err != nil {
			return err
		}
		m.say("every host has a file after %.1f s", time.Since(began).Seconds())
	}
	// As fast as this machine plays hosts: together they would wait for its processors alone.
	if err := m.crowd.tell("Start", Some{Step: 1, Most: 16}); err != nil {
		return err
	}
	m.result.Install = time.Since(began).Seconds()
	m.say("every host knows what it uses after %.1f s", m.result.Install)
	if err := m.startReal(); err != nil {
		return err
	}
	if err := m.crowd.tell("Lookups", m.o.Lookups); err != nil {
		return err
	}
	time.Sleep(m.o.Window / 2) // first questions fill the caches
	return nil
}

// cores is what the servers take over a time.
func (m *measurement) cores(d time.Duration) float64 {
	before := m.servers.CPU()
	time.Sleep(d)
	return (m.servers.CPU() - before).Seconds() / d.Seconds()
}

// peak watches the servers until it is called, and returns the most cores that they took in half a second.
func (m *measurement) peak() func() float64 {
	stop, most := make(chan struct{}), make(chan float64)
	go func() {
		var top float64
		last, at := make([]time.Duration, len(m.servers)), time.Now()
		used := func() (sum time.Duration) {
			for i, s := range m.servers {
				now := servers.Cluster{s}.CPU() // one that died has none, and begins at zero
				sum += max(0, now-last[i])
				last[i] = now
			}
			return sum
		}
		used()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				most <- top
				return
			case now := <-tick.C:
				top = max(top, used().Seconds()/now.Sub(at).Seconds())
				at = now
			}
		}
	}()
	return func() float64 { close(stop); return <-most }
}

// untilRest waits until the servers take no more than half as much again as at rest, for a minute and a half at most.
func (m *measurement) untilRest(since time.Time) float64 {
	for time.Since(since) < 90*time.Second {
		if m.cores(m.o.Window/5) <= m.rest*1.5+0.02 {
			break
		}
	}
	return (time.Since(since) - m.o.Window/5).Seconds()
}

// quiet measures with and without lookups.
func (m *measurement) quiet() error {
	r := &m.result
	hosts := float64(m.f.Hosts)
	if err := m.crowd.tell("Lookups", 0); err != nil {
		return err
	}
	time.Sleep(time.Second)
	_, before := m.readReal()
	idle, err := m.window(func() error { time.Sleep(m.o.Window); return nil })
	_, after := m.readReal()
	r.RealIdle = 100 * (after - before).Seconds() / idle.seconds
	if err != nil {
		return err
	}
	if err := m.crowd.tell("Lookups", m.o.Lookups); err != nil {
		return err
	}
	w, err := m.window(func() error { time.Sleep(m.o.Window); return nil })
	if err != nil {
		return err
	}
	m.rest = w.cores
	r.IdleCores, r.RestCores = idle.cores, w.cores
	r.RestBytes, r.Streams = idle.bytes, int(w.streams)
	r.HostBytes = (idle.hostIn + idle.hostOut) / hosts
	r.HostIdle = 100 * idle.hostCPU.Seconds() / idle.seconds / hosts
	r.HostMB = float64(w.hostHeap) / (1 << 20) / hosts
	r.LookupMicros = (w.hostCPU.Seconds()/w.seconds - idle.hostCPU.Seconds()/idle.seconds) / (float64(w.lookups) / w.seconds) * 1e6
	r.LeaderMB, r.ServersMB = w.leader, w.resident
	m.say("servers take %.3f cores without lookups and %.3f with %.0f a second; a host takes %.1f KiB/s",
		idle.cores, w.cores, float64(w.lookups)/w.seconds, r.HostBytes/1024)
	return nil
}

// spread is how one change went.
type spread struct {
	users, missing int
	took           *hdrhistogram.Histogram // to the users
	write          time.Duration           // until it was acknowledged
}

// toggle has an instance begin or cease to pass its check, and follows that to all that use the service.
func (m *measurement) toggle(service, instance int) (s spread, err error) {
	up := m.down[service][instance]
	m.down[service][instance] = !up
	return m.write(service, instance, up)
}

func (m *measurement) write(service, instance int, up bool) (s spread, err error) {
	status := "critical"
	if up {
		status = "passing"
	}
	c := Change{Service: service, Instance: instance, Up: up, At: time.Now()}
	if err := m.crowd.tell("Announce", c); err != nil {
		return s, err
	}
	sent := time.Now()
	err = m.leader.Register(m.f.register(service, instance, status))
	for try := 0; err != nil && try < 3; try++ { // the leader changed: what it does is the same the second time
		m.say("a write is sent again: %v", err)
		err = m.leader.Register(m.f.register(service, instance, status))
	}
	if err != nil {
		return s, err
	}
	c.At = time.Now()
	s.write = c.At.Sub(sent)
	list, err := call[Spread](m.crowd, "Committed", c)
	s.took = newHistogram()
	for _, one := range list {
		s.users, s.missing = s.users+one.Users, s.missing+one.Missing
		s.took.Merge(hdrhistogram.Import(one.Took))
	}
	return s, err
}

// changing writes changes at a rate until the time is over, of random instances or of one service.
func (m *measurement) changing(rate float64, d time.Duration, only int) (s changes, err error) {
	s.each, s.last, s.write = newHistogram(), newHistogram(), newHistogram()
	var mu sync.Mutex
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-tick.C
		service, instance := only, 0
		if only < 0 {
			// One that was changed is left in peace while its last change may be on its way.
			for try := 0; try == 0 || time.Now().Before(m.calm[service]); try++ {
				if try == 10*m.f.Services {
					wg.Wait()
					return s, errors.Join(err, fmt.Errorf("all %d services were changed within %s: fewer -changes are wanted, or more -services", m.f.Services, calmFor))
				}
				service = m.random.IntN(m.f.Services)
			}
			m.calm[service] = time.Now().Add(calmFor)
			instance = m.random.IntN(m.f.Each)
		}
		up := m.down[service][instance]
		m.down[service][instance] = !up
		wg.Go(func() {
			one, e := m.write(service, instance, up)
			mu.Lock()
			defer mu.Unlock()
			if err = errors.Join(err, e); e != nil {
				return
			}
			s.count++
			s.users, s.missing = s.users+one.users, s.missing+one.missing
			s.each.Merge(one.took)
			_ = s.write.RecordValue(max(1, one.write.Microseconds()))
			if one.users > 0 {
				_ = s.last.RecordValue(one.took.Max())
			}
		})
		if only >= 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	return s, err
}

// changes is what many changes took.
type changes struct {
	count, users, missing int
	each, last, write     *hdrhistogram.Histogram
}

func (m *measurement) change() error {
	r := &m.result
	var s changes
	w, err := m.window(func() (err error) { s, err = m.changing(m.o.Changes, m.o.Duration, -1); return err })
	if err != nil {
		return err
	}
	r.Changes, r.Users = s.count, float64(s.users)/float64(s.count)
	r.ChangeP50, r.ChangeP99, r.ChangeMax, r.Missing = ms(s.each, 50), ms(s.each, 99), ms(s.each, 100), s.missing
	r.WriteP50, r.WriteP99 = ms(s.write, 50), ms(s.write, 99)
	r.Cores, r.Bytes, r.Pushes = w.cores, w.bytes, w.pushes
	r.StaleShare = float64(w.stale) / float64(w.lookups)
	r.Lag = ms(w.lag, 99)
	resident, _ := m.readReal()
	r.RealMB = float64(resident) / (1 << 20)
	r.LeaderMB, r.ServersMB = max(r.LeaderMB, w.leader), max(r.ServersMB, w.resident)
	r.Rate = float64(s.count) / w.seconds
	r.ChangeCollections = w.collections
	// After they were filled servers write files and snapshots for minutes: what is at rest is the lesser of before and after.
	time.Sleep(m.o.Window / 5)
	r.RestCores = min(r.RestCores, m.cores(m.o.Window))
	m.say("%d changes, %.0f users each: p50 %.1f ms, p99 %.1f ms, at most %.1f ms; servers take %.3f cores; %d wrong of %d lookups",
		s.count, r.Users, r.ChangeP50, r.ChangeP99, r.ChangeMax, w.cores, w.wrong, w.lookups)
	if w.collections > 0 {
		m.say("meanwhile those who play hosts collected garbage %d times: more -memory is wanted, or fewer hosts", w.collections)
	}
	return nil
}

func (m *measurement) hot() error {
	var s changes
	w, err := m.window(func() (err error) { s, err = m.changing(1, m.o.Window, hot); return err })
	if err != nil {
		return err
	}
	r := &m.result
	r.HotPushes, r.HotLast, r.HotCores = w.pushes, ms(s.last, 100), w.cores
	m.say("the last of %d hosts answers with it after %.1f ms at most; %.0f pushes a second, %.3f cores", m.f.Hosts, r.HotLast, w.pushes, w.cores)
	return nil
}

// event measures what happens after f, until the servers are at rest.
func (m *measurement) event(f func() error) (e event, err error) {
	began := time.Now()
	peak := m.peak()
	w, err := m.window(func() error {
		if err := f(); err != nil {
			return err
		}
		e.Seconds = time.Since(began).Seconds()
		e.RestSeconds = m.untilRest(began)
		return nil
	})
	e.PeakCores, e.Lookups, e.Failed, e.Wrong = peak(), w.lookups, w.failed, w.wrong
	if err == nil {
		e.Lag = ms(w.lag, 99)
	}
	return e, err
}

// restart kills each step-th host and starts it again with what it knew.
func (m *measurement) restart(step int, spread time.Duration, e *event) error {
	a := Some{Step: step, Spread: spread}
	if err := m.crowd.tell("Kill", a); err != nil {
		return err
	}
	time.Sleep(m.o.Window / 5)
	var err error
	*e, err = m.event(func() error { return m.crowd.tell("Start", a) })
	m.say("the last was told all after %.1f s, %d of %d lookups failed; the servers took %.2f cores at most and are at rest after %.0f s",
		e.Seconds, e.Failed, e.Lookups, e.PeakCores, e.RestSeconds)
	return err
}

func (m *measurement) killLeader() error {
	dead := m.leader
	var last float64
	unseen := 0
	e, err := m.event(func() error {
		dead.Kill()
		began := time.Now()
		for _, m.leader = range m.servers {
			if m.leader != dead {
				break
			}
		}
		s, err := m.toggle(m.f.Services-1, 0)
		last = time.Since(began).Seconds()
		m.result.LeaderKilledWrite = s.write.Seconds()
		unseen = s.missing
		return err
	})
	e.Seconds, e.Unseen = last, unseen
	m.result.LeaderKilled = e
	m.say("a write again after %.2f s, at its last user after %.2f s (%d did not see it); %d lookups failed; the servers took %.2f cores at most and are at rest after %.0f s",
		m.result.LeaderKilledWrite, last, unseen, e.Failed, e.PeakCores, e.RestSeconds)
	if err := errors.Join(err, dead.Start()); err != nil {
		return err
	}
	time.Sleep(m.o.Window / 2) // it has its log again before the next blow
	m.leader, err = m.servers.Leader()
	return err
}

func (m *measurement) killAll() error {
	var led, half float64
	e, err := m.event(func() error {
		killed := time.Now()
		for _, s := range m.servers {
			s.Kill()
		}
		for _, s := range m.servers {
			if err := s.Start(); err != nil {
				return err
			}
		}
		var err error
		if m.leader, err = m.servers.Leader(); err != nil {
			return err
		}
		led = time.Since(killed).Seconds()
		all, err := m.crowd.confirmed(killed)
		half = all[len(all)/2].Seconds()
		return err
	})
	m.result.AllKilled, m.result.AllKilledLeader, m.result.AllKilledHalf = e, led, half
	m.say("a leader after %.1f s, half of the hosts confirmed after %.1f s, all after %.1f s; %d lookups failed; at rest after %.0f s", led, half, e.Seconds, e.Failed, e.RestSeconds)
	return err
}

// ms is a percentile in milliseconds.
func ms(h *hdrhistogram.Histogram, percent float64) float64 {
	return float64(h.ValueAtPercentile(percent)) / 1000
}
