package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/report"
	"meibo/bench/servers"
)

// What the load of `make bench-feed` is.
const (
	feedProcesses = 4
	feedChanges   = 200
	feedRate      = 10 // changes each second
	feedNames     = 20 // services that each host uses

	maxFleetStart = 10 * time.Second
	maxNoWrite    = 1200 * time.Millisecond
	maxNoise      = time.Millisecond // what changes of a large service may add to other names' p99
)

// feedHosts is how many hosts are played: HOSTS of make bench-feed, or 300.
var feedHosts = func() int {
	if n, err := strconv.Atoi(os.Getenv("MEIBO_FEED_COUNT")); err == nil && n > 0 {
		return n
	}
	return 300
}()

// feedServices is how many services the hosts offer, four each: twenty instances of each.
var feedServices = feedHosts / 5

// results is where they are written.
const results = "RESULTS.md"

// TestFeedLoad measures many hosts against three real servers and writes RESULTS.md. It takes minutes and a quiet machine.
func TestFeedLoad(t *testing.T) {
	if os.Getenv("MEIBO_FEED_LOAD") == "" {
		t.Skip("takes minutes: run make bench-feed")
	}
	var r report.Table
	title := fmt.Sprintf("%d hosts, three servers", feedHosts)
	if os.Getenv("MEIBO_FEED_COUNT") != "" { // many: one form alone, as each takes minutes
		r.Row(title, "by name")
		for _, figure := range measureFeed(t, "view { whole_below = 0 }\n") {
			r.Row(figure[0], figure[1])
		}
		report.Write(t, results, fmt.Sprintf("make bench-feed HOSTS=%d", feedHosts), r)
		return
	}
	whole := measureFeed(t, "")
	named := measureFeed(t, "view { whole_below = 0 }\n")
	r.Row(title, "whole catalog", "by name")
	for i := range whole {
		r.Row(whole[i][0], whole[i][1], named[i][1])
	}
	report.Write(t, results, "make bench-feed", r, measureLarge(t))
}

// measureFeed returns names of figures and their values.
func measureFeed(t *testing.T, extra string) [][2]string {
	t.Helper()
	c := newRealCluster(t, extra)
	defer c.stop()
	c.leader()
	c.fill(feedCatalog())
	var out [][2]string
	add := func(what, format string, args ...any) {
		out = append(out, [2]string{what, fmt.Sprintf(format, args...)})
		t.Logf("%s: %s", what, out[len(out)-1][1]) // as it is known: the rest takes minutes
	}

	// Without hosts: what the writes themselves cost.
	seq := uint64(0)
	idle0 := c.used(func() { time.Sleep(10 * time.Second) }) / 10
	write0 := c.used(func() { seq, _ = c.change(nil, seq) })
	memory0 := c.held()

	began := time.Now()
	p := c.play(feedHosts, feedProcesses, feedUses())
	defer p.stop()
	ready := p.times("ready", 0)
	start := time.Unix(0, ready[len(ready)-1]).Sub(began)
	add("start of the fleet, to the last host's answers", "%.2f s", start.Seconds())
	time.Sleep(5 * time.Second)
	memory1 := c.held()
	add("memory of a server at rest, resident", "%.0f MiB", resident(c.Cluster)/3)
	add("memory for each stream on a server, TLS included", "%.1f KiB", (memory1-memory0)/float64(feedHosts)/1024)

	idle1 := c.used(func() { time.Sleep(10 * time.Second) }) / 10
	var spread spread
	write1 := c.used(func() { seq, spread = c.change(p, seq) })
	seconds := time.Duration(feedChanges / feedRate)
	pushed := (write1 - idle1*seconds) - (write0 - idle0*seconds)
	add("server CPU for an idle stream", "%.0f µs/s", float64((idle1-idle0).Microseconds())/float64(feedHosts))
	add("server CPU for a change pushed to one host", "%.1f µs", float64(pushed.Microseconds())/feedChanges/float64(feedHosts))
	add("a change, from the write's request to one host's answers, p50 / p99", "%s / %s", ms(spread.each, 50), ms(spread.each, 99))
	add("the same to the last host, p50 / p99", "%s / %s", ms(spread.last, 50), ms(spread.last, 99))
	add("the write itself, request to reply, p50 / p99", "%s / %s", ms(spread.write, 50), ms(spread.write, 99))

	e := c.killLeader(p, seq+1)
	add("the leader killed: a write again after", "%.2f s", e.write.Seconds())
	add("that write at the last host's answers", "%.2f s", e.last.Seconds())
	add("CPU of the two others in the ten seconds after, at rest", "%.2f s, %.2f s", e.cpu.Seconds(), (10 * idle1 * 2 / 3).Seconds())
	add("memory of each of them then, resident, at most", "%.0f MiB", e.memory/2)
	if e.write > maxNoWrite {
		missed(t, "no write for %v after the leader was killed, want %v at most", e.write, maxNoWrite)
	}

	killed := time.Now()
	for _, h := range c.Cluster {
		h.Kill()
	}
	for _, h := range c.Cluster {
		hosttest.Must(t, h.Start())
	}
	c.leader()
	led := time.Since(killed)
	again := p.confirmed(killed)
	back := time.Unix(0, again[len(again)-1]).Sub(killed)
	half := time.Unix(0, again[len(again)/2]).Sub(killed)
	add("all servers killed and started: leader / half of the hosts / the last host confirmed", "%.2f s / %.2f s / %.2f s",
		led.Seconds(), half.Seconds(), back.Seconds())
	if start > maxFleetStart || back > maxFleetStart {
		missed(t, "the fleet took %v to start and %v to be back, want %v at most", start, back, maxFleetStart)
	}
	return out
}

// election is what the death of the leader led to.
type election struct {
	write, last time.Duration // until a write was answered, and shown by all hosts
	cpu         time.Duration // of the other servers in ten seconds
	memory      float64       // of both at most, in MiB
}

// killLeader kills the leader, writes change seq by another server, and starts the leader again.
func (c *realCluster) killLeader(p *children, seq uint64) (e election) {
	c.t.Helper()
	dead := c.leader()
	var others servers.Cluster
	for _, h := range c.Cluster {
		if h != dead {
			others = append(others, h)
		}
	}
	before := others.CPU()
	killed := time.Now()
	dead.Kill()
	written := make(chan error, 1)
	go func() {
		err := others[0].Register(changeBody(seq))
		e.write = time.Since(killed)
		written <- err
	}()
	for time.Since(killed) < 10*time.Second {
		e.memory = max(e.memory, resident(others))
		time.Sleep(100 * time.Millisecond)
	}
	e.cpu = others.CPU() - before
	if err := <-written; err != nil {
		c.t.Fatal(err)
	}
	times := p.times("change", seq)
	e.last = time.Unix(0, times[len(times)-1]).Sub(killed)
	hosttest.Must(c.t, dead.Start())
	time.Sleep(5 * time.Second)
	return e
}

// resident is the memory of servers, in MiB.
func resident(hosts servers.Cluster) (sum float64) {
	for _, h := range hosts {
		sum += float64(h.Resident()) / (1 << 20)
	}
	return sum
}

// changeBody registers the service that changes, with the number of a change.
func changeBody(seq uint64) string {
	return fmt.Sprintf(`{"Node":"outside","Address":"192.0.2.200","Service":{"Service":%q,"Port":80,"Meta":{"seq":"%d"}}}`, changing, seq)
}

// missed says that a bar is missed, which fails in `make verify` alone: a time says something about the machine too.
func missed(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("MEIBO_VERIFY") != "" {
		t.Errorf(format, args...)
		return
	}
	t.Logf("missed: "+format, args...)
}

// used is the servers' CPU for what f does.
func (c *realCluster) used(f func()) time.Duration {
	before := c.CPU()
	f()
	return c.CPU() - before
}

// spread is how long changes took.
type spread struct{ each, last, write []time.Duration }

// change writes changes at the rate, and waits for each to reach all hosts of p, if not nil.
func (c *realCluster) change(p *children, seq uint64) (uint64, spread) {
	c.t.Helper()
	leader := c.leader()
	var s spread
	tick := time.NewTicker(time.Second / feedRate)
	defer tick.Stop()
	for range feedChanges {
		<-tick.C
		seq++
		sent := time.Now()
		err := leader.Register(changeBody(seq))
		if err != nil {
			c.t.Fatal(err)
		}
		s.write = append(s.write, time.Since(sent))
		if p == nil {
			continue
		}
		times := p.times("change", seq)
		for _, at := range times {
			s.each = append(s.each, time.Unix(0, at).Sub(sent))
		}
		s.last = append(s.last, time.Unix(0, times[len(times)-1]).Sub(sent))
	}
	for _, list := range [][]time.Duration{s.each, s.last, s.write} {
		slices.Sort(list)
	}
	return seq, s
}

// ms is a percentile of a sorted list.
func ms(sorted []time.Duration, percent int) string {
	return fmt.Sprintf("%.1f ms", float64(percentile(sorted, percent).Microseconds())/1000)
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

// feedCatalog is a node for each host with four services, and the one that changes.
func feedCatalog() (bodies []string) {
	for i := range feedHosts {
		for j := range 4 {
			name := fmt.Sprintf("svc-%02d", (i+j*17)%feedServices)
			bodies = append(bodies, fmt.Sprintf(`{"Node":"host-%03d","Address":"10.0.%d.%d","Service":{"Service":%q,"Port":%d,"Tags":["v1","prod"],"Meta":{"version":"1.2.3"}},`+
				`"Check":{"CheckID":"service:%s","Name":"Service '%s' check","ServiceID":%q,"Status":"passing","Output":"HTTP GET http://10.0.%d.%d/health: 200 OK"}}`,
				i, i/250, i%250+1, name, 8000+j, name, name, name, i/250, i%250+1))
		}
	}
	return append(bodies, changeBody(0))
}

func feedUses() []string {
	names := []string{changing}
	for i := range feedNames - 1 {
		names = append(names, fmt.Sprintf("svc-%02d", i*3))
	}
	return names
}
