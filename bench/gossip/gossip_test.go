package gossip_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/bench/report"
	"meibo/cluster/clustertest/memnet"
	"meibo/cluster/membership"
)

const (
	near, far = time.Millisecond, 20 * time.Millisecond // each way
	atRest    = 60 * time.Second
	faulty    = 20 * time.Second
	// quiet is how many packets a host sends each second, at most, that has nothing to tell.
	quiet = 13
	// maxIdle is the part of a core that gossip takes of a host at rest, at most.
	maxIdle = 0.004
	sixty   = 60
	modeled = 5000 // hosts, for which the bar is
)

// figures are what was measured at one size. Rates are for each host and second, times in
// seconds, CPU in microseconds.
type figures struct {
	Hosts int `json:"hosts"`

	Join       float64 `json:"join_s"`             // of all at once, until each shows all
	JoinHosts  int     `json:"join_hosts_reached"` // by then
	JoinCPU    float64 `json:"join_cpu_us"`        // of each host, all told
	Quiet      float64 `json:"quiet_s"`            // after the join, until all that was to be told is
	QuietBytes float64 `json:"quiet_bytes"`        // each second until then, packets
	QuietCPU   float64 `json:"quiet_cpu_us"`

	Memory      float64 `json:"memory_bytes"`
	Packets     float64 `json:"idle_packets"`
	PacketBytes float64 `json:"idle_packet_bytes"` // UDP's payload
	StreamBytes float64 `json:"idle_stream_bytes"` // TCP's, of push/pulls
	CPU         float64 `json:"idle_cpu_us"`       // the network in memory among it
	NetworkCPU  float64 `json:"network_cpu_us"`    // of that

	SixtyCPU   float64 `json:"idle_cpu_us_60"`          // of a host in a cluster of sixty that has the process to itself
	SixtiesCPU float64 `json:"idle_cpu_us_clusters_60"` // of one in such clusters with as many hosts together

	PushPullBytes float64 `json:"push_pull_bytes"` // of one, both ways
	PushPullCPU   float64 `json:"push_pull_cpu_us"`

	Death   []float64 `json:"death_s"` // until all others show it
	Return  []float64 `json:"return_s"`
	Tags    []float64 `json:"tags_s"`
	Rolling float64   `json:"rolling_s"` // after the last start, until all show all as they are

	Faults []faults `json:"faults"`
}

// faults is what a bad network led to.
type faults struct {
	Network     string  `json:"network"`
	HostSeconds float64 `json:"host_seconds"`
	Suspicions  float64 `json:"suspicions"` // deaths told that began a confirmation
	Refuted     float64 `json:"refuted"`
	Suspected   float64 `json:"shown_suspect"` // shown so by one host of one that lived
	Dead        float64 `json:"shown_dead"`
	Packets     float64 `json:"packets"`
	Bytes       float64 `json:"bytes"`
	CPU         float64 `json:"cpu_us"`
}

// TestGossipLoad measures gossip among each of the numbers of hosts, and writes RESULTS.md. It takes minutes.
func TestGossipLoad(t *testing.T) {
	if os.Getenv("MEIBO_GOSSIP_LOAD") == "" {
		t.Skip("takes minutes: run make bench-gossip")
	}
	var all []figures
	for _, text := range strings.Fields(os.Getenv("GOSSIP_HOSTS")) {
		n, err := strconv.Atoi(text)
		must(t, err)
		f := measure(t, n, atRest, faulty)
		f.SixtyCPU, f.SixtiesCPU = sixties(t, 1), sixties(t, (n+sixty-1)/sixty)
		t.Logf("at rest in clusters of %d: %.0f µs/s, as many hosts: %.0f µs/s", sixty, f.SixtyCPU, f.SixtiesCPU)
		all = append(all, f)
	}
	last := all[len(all)-1]
	command := "make bench-gossip"
	if given := os.Getenv("GOSSIP_COMMAND"); given != "" {
		command += " " + given
	}
	tables := []report.Table{sizes(all), conditions(last)}
	if len(all) > 1 { // else nothing is known of how it grows
		tables = append(tables, models(all))
		sixty, grown, pushPulls := idleCPU(all, modeled)
		if at := sixty + grown + pushPulls; at/1e6 > maxIdle {
			t.Errorf("a host at rest among %d takes %.2f %% of a core for gossip, want %.1f %% at most", modeled, at/1e4, maxIdle*100)
		}
	}
	report.Write(t, "../RESULTS.md", command, tables...)
	if file := os.Getenv("GOSSIP_JSON"); file != "" {
		b, err := json.MarshalIndent(all, "", "  ")
		must(t, err)
		must(t, os.WriteFile(file, append(b, '\n'), 0o644))
	}
}

// A small fleet goes through all that is measured, and holds what is promised of gossip.
func TestGossip_SixtyHosts(t *testing.T) {
	f := measure(t, 60, 10*time.Second, 5*time.Second)
	if f.JoinHosts != 60 || f.Packets < 10 || f.Packets > quiet || f.StreamBytes+f.PushPullBytes == 0 {
		t.Errorf("got %+v", f)
	}
}

// measure runs a fleet through all. It fails the test if a host that lives is shown dead.
func measure(t *testing.T, n int, rest, faulty time.Duration) (out figures) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { out.NetworkCPU = float64(carry(t).Nanoseconds()) / 1000 })
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, n)
		defer f.end()
		empty := heap()
		f.net.SetAll(memnet.Path{Delay: near})
		out.Hosts = n
		out.join(f)
		out.rest(f, rest)
		out.Memory = (heap() - empty) / float64(n)
		out.pushPull(f)
		for range 3 {
			out.tags(f)
			out.death(f)
		}
		for _, p := range []memnet.Path{{Delay: near}, {Delay: near, Loss: 0.02}, {Delay: near, Loss: 0.1}, {Delay: far}, {Delay: far, Loss: 0.02}, {Delay: far, Loss: 0.1}} {
			out.faults(f, p, faulty)
		}
		f.net.SetAll(memnet.Path{Delay: near})
		out.restart(f)
		if dead := f.wrong.dead.Load(); dead != 0 {
			t.Errorf("hosts that lived were shown dead %d times", dead)
		}
	})
	return out
}

// sixties is the CPU of a host at rest in one of so many clusters of sixty in one process. It grows with
// their number alone, since no memory is warm any more: what more a larger cluster takes is its own.
func sixties(t *testing.T, clusters int) (micros float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		for range clusters {
			f := newFleet(t, sixty)
			defer f.end()
			f.net.SetAll(memnet.Path{Delay: near})
			new(figures).join(f)
		}
		before := cpu(t)
		time.Sleep(faulty)
		micros = float64((cpu(t) - before).Microseconds()) / faulty.Seconds() / float64(clusters*sixty)
	})
	return micros
}

// join starts all hosts within a second and waits until they have nothing more to tell.
func (out *figures) join(f *fleet) {
	n := float64(len(f.hosts))
	joined := f.during(func() {
		for _, h := range f.hosts {
			h.start()
			time.Sleep(time.Second / time.Duration(len(f.hosts)))
		}
		out.Join = f.until(10*time.Minute, "all show all", f.hosts, (*host).whole).Seconds()
	})
	out.JoinCPU = joined.micros() / n
	for _, h := range f.hosts {
		if h.whole() {
			out.JoinHosts++
		}
	}
	f.Logf("%d hosts: %d joined in %.1f s (%.0f s of CPU)", len(f.hosts), out.JoinHosts, out.Join, joined.cpu.Seconds())
	told := f.during(func() {
		for f.during(func() { time.Sleep(5 * time.Second) }).packets > 5*n*quiet {
		}
	})
	out.Quiet = told.seconds()
	out.QuietBytes = told.packetBytes / n / told.seconds()
	out.QuietCPU = told.micros() / n / told.seconds()
	f.Logf("quiet after %.0f s: %.0f B/s, %.0f µs/s for each host", out.Quiet, out.QuietBytes, out.QuietCPU)
}

// rest is what hosts take among which nothing happens.
func (out *figures) rest(f *fleet, d time.Duration) {
	u := f.during(func() { time.Sleep(d) })
	hostSeconds := float64(len(f.hosts)) * d.Seconds()
	out.Packets, out.PacketBytes, out.StreamBytes = u.packets/hostSeconds, u.packetBytes/hostSeconds, u.streamBytes/hostSeconds
	out.CPU = u.micros() / hostSeconds
	out.NetworkCPU *= out.Packets // of one until now
	f.Logf("at rest: %.1f packets/s, %.0f + %.0f B/s, %.0f µs/s (%.0f of it the network's)", out.Packets, out.PacketBytes, out.StreamBytes, out.CPU, out.NetworkCPU)
}

// pushPull is what it takes that a host compares lists with another.
func (out *figures) pushPull(f *fleet) {
	const most = 100
	count := min(most, len(f.hosts))
	u := f.during(func() {
		for i, h := range f.hosts[:count] {
			_, err := h.Join(f.Context(), []string{fmt.Sprintf("%s:%d", f.addr((i+1)%len(f.hosts)), port)})
			must(f, err)
		}
	})
	out.PushPullBytes = u.streamBytes / max(u.streams, 1)
	out.PushPullCPU = max(0, u.micros()-out.CPU*float64(len(f.hosts))*u.seconds()) / max(u.streams, 1)
	f.Logf("a push/pull: %.0f B, %.0f µs", out.PushPullBytes, out.PushPullCPU)
}

// tags is how long a change takes to the last host.
func (out *figures) tags(f *fleet) {
	h := f.hosts[len(f.hosts)/3]
	value := strconv.Itoa(len(out.Tags))
	told := make(chan error, 1)
	go func() { told <- h.SetTags(map[string]string{"changed": value}) }() // returns when this host has told it
	out.Tags = append(out.Tags, f.until(10*time.Minute, "the tag", f.living(), func(o *host) bool { return o.shows(h).Tags["changed"] == value }).Seconds())
	must(f, <-told)
}

// death is how long one takes until all others show it, and its return.
func (out *figures) death(f *fleet) {
	h := f.hosts[len(f.hosts)/2+len(out.Death)]
	h.kill()
	out.Death = append(out.Death, f.until(time.Minute, "the death", f.living(), func(o *host) bool { return o.shows(h).Status == membership.Failed }).Seconds())
	<-h.done
	h.start()
	out.Return = append(out.Return, f.until(10*time.Minute, "the return", f.hosts, (*host).whole).Seconds())
	f.Logf("tags %.2f s, death %.2f s, return %.2f s", out.Tags[len(out.Tags)-1], out.Death[len(out.Death)-1], out.Return[len(out.Return)-1])
}

// faults is what happens at rest when the network is bad.
func (out *figures) faults(f *fleet, p memnet.Path, d time.Duration) {
	f.net.SetAll(p)
	u := f.during(func() { time.Sleep(d) })
	hostSeconds := float64(len(f.hosts)) * d.Seconds()
	out.Faults = append(out.Faults, faults{
		Network: fmt.Sprintf("%v each way, %.0f %% lost", p.Delay, p.Loss*100), HostSeconds: hostSeconds,
		Suspicions: u.counts["meibo_gossip_suspicions_total"], Refuted: u.counts["meibo_gossip_suspicions_refuted_total"],
		Suspected: u.suspected, Dead: u.dead, Packets: u.packets / hostSeconds, Bytes: u.packetBytes / hostSeconds, CPU: u.micros() / hostSeconds,
	})
	f.Logf("%+v", out.Faults[len(out.Faults)-1])
}

// restart kills and starts a tenth of the hosts, a tenth of that each second, each down for
// a second.
func (out *figures) restart(f *fleet) {
	tenth := f.hosts[seeds : seeds+len(f.hosts)/10]
	lives := make(map[string]uint64)
	for group := range slices.Chunk(tenth, max(1, len(tenth)/10)) {
		for _, h := range group {
			h.kill()
		}
		time.Sleep(time.Second)
		for _, h := range group {
			<-h.done
			h.start()
			lives[id(h.n)] = h.Members().Self().Life
		}
	}
	out.Rolling = f.until(10*time.Minute, "all show the new lives", f.hosts, func(h *host) bool {
		return h.whole() && !slices.ContainsFunc(h.Members().Members(), func(m *membership.Member) bool { return lives[m.ID] != 0 && m.Life != lives[m.ID] })
	}).Seconds()
	f.Logf("a tenth restarted: all show it %.2f s after", out.Rolling)
}

// line is a figure as a number of hosts makes it grow: at rest plus for each host.
type line struct{ fixed, each float64 }

func (l line) at(n int) float64 { return l.fixed + l.each*float64(n) }

// model is the line with the least squares of the relative errors.
func model(all []figures, of func(figures) float64) line {
	var sw, sx, sy, sxx, sxy float64
	for _, f := range all {
		x, y := float64(f.Hosts), of(f)
		w := 1 / max(y*y, 1)
		sw, sx, sy, sxx, sxy = sw+w, sx+w*x, sy+w*y, sxx+w*x*x, sxy+w*x*y
	}
	if d := sw*sxx - sx*sx; len(all) > 1 && d > 0 {
		each := (sw*sxy - sx*sy) / d
		return line{(sy - each*sx) / sw, each}
	}
	return line{fixed: sy / sw}
}

// between is how many seconds lie between two push/pulls that a host among n begins: memberlist's rule.
func between(n int) float64 {
	return 30 * (1 + max(0, math.Ceil(math.Log2(float64(n)/32))))
}

// steadyCPU is that of a host at rest without push/pulls: all have theirs at about the same time, whenever that is.
func (f figures) steadyCPU() float64 {
	return max(0, f.CPU-f.StreamBytes/max(f.PushPullBytes, 1)*f.PushPullCPU)
}

func (f figures) pushPullCPU() float64 { return f.PushPullCPU }

// grownCPU is what more a host at rest takes because of its cluster's size.
func (f figures) grownCPU() float64 { return max(0, f.steadyCPU()-f.SixtiesCPU) }

// idleCPU is that of a host at rest among n, in µs/s: that of one among sixty, what the largest cluster added for each
// host, and its own push/pulls, the work of both hosts.
func idleCPU(all []figures, n int) (sixty, grown, pushPulls float64) {
	last := all[len(all)-1]
	return last.SixtyCPU, last.grownCPU() * float64(n) / float64(last.Hosts), model(all, figures.pushPullCPU).at(n) / between(n)
}

// sizes is the table of all sizes.
func sizes(all []figures) (r report.Table) {
	row := func(what, format string, of func(f figures) []any) {
		var cells []string
		for _, f := range all {
			cells = append(cells, fmt.Sprintf(format, of(f)...))
		}
		r.Row(what, cells...)
	}
	list := slices.Max[[]float64]
	title := "gossip alone, in fake time, 1 ms each way"
	if mult := os.Getenv("GOSSIP_RETRANSMIT"); mult != "" {
		title += ", each message told " + mult + " ⌈log₁₀(N+1)⌉ times by each host (a daemon: 10)"
	}
	row(title, "%d hosts", func(f figures) []any { return []any{f.Hosts} })
	row("all started at once: each shows all after", "%.2f s", func(f figures) []any { return []any{f.Join} })
	row("CPU of a host for that", "%.0f ms", func(f figures) []any { return []any{f.JoinCPU / 1000} })
	row("hosts reached", "%d", func(f figures) []any { return []any{f.JoinHosts} })
	row("all is told after, at a host's rate of", "%.0f s, %.1f KB/s, %.2f %% of a core", func(f figures) []any { return []any{f.Quiet, f.QuietBytes / 1000, f.QuietCPU / 1e4} })
	row("at rest, a host sends", "%.1f packets/s, %.0f B/s", func(f figures) []any { return []any{f.Packets, f.PacketBytes} })
	row("and in the push/pulls that it begins, both ways, by their size and interval", "%.0f B/s", func(f figures) []any { return []any{f.PushPullBytes / between(f.Hosts)} })
	row("CPU of a host at rest, the network in memory included", "%.3f %% of a core", func(f figures) []any { return []any{f.CPU / 1e4} })
	row("of it the network in memory", "%.3f %%", func(f figures) []any { return []any{f.NetworkCPU / 1e4} })
	row("CPU of a host in clusters of 60, one alone / with as many hosts together", "%.3f / %.3f %%", func(f figures) []any { return []any{f.SixtyCPU / 1e4, f.SixtiesCPU / 1e4} })
	row("memory of a host", "%.1f MiB", func(f figures) []any { return []any{f.Memory / (1 << 20)} })
	row("a push/pull, both hosts", "%.0f KB, %.1f ms of CPU", func(f figures) []any { return []any{f.PushPullBytes / 1000, f.PushPullCPU / 1000} })
	row("a host killed: the last shows it dead after, at most of three", "%.2f s", func(f figures) []any { return []any{list(f.Death)} })
	row("started again: the last shows it alive after", "%.2f s", func(f figures) []any { return []any{list(f.Return)} })
	row("a tag changed: the last has it after", "%.2f s", func(f figures) []any { return []any{list(f.Tags)} })
	row("a tenth restarted one after the other: all show it after", "%.2f s", func(f figures) []any { return []any{f.Rolling} })
	return r
}

// conditions is the table of networks.
func conditions(f figures) (r report.Table) {
	r.Row(fmt.Sprintf("%d hosts at rest", f.Hosts), "host-seconds", "suspicions, refuted", "shown suspect", "shown dead", "packets/s", "B/s", "CPU")
	for _, c := range f.Faults {
		r.Row(c.Network, fmt.Sprintf("%.0f", c.HostSeconds), fmt.Sprintf("%.0f, %.0f", c.Suspicions, c.Refuted), fmt.Sprintf("%.0f", c.Suspected), fmt.Sprintf("%.0f", c.Dead),
			fmt.Sprintf("%.1f", c.Packets), fmt.Sprintf("%.0f", c.Bytes), fmt.Sprintf("%.3f %%", c.CPU/1e4))
	}
	return r
}

// models is the table of how figures grow.
func models(all []figures) (r report.Table) {
	r.Row("a host at rest among N", "by the sizes above", fmt.Sprintf("N = %d", modeled))
	for _, m := range []struct {
		what, unit string
		of         func(f figures) float64
	}{
		{"packets", "B/s", func(f figures) float64 { return f.PacketBytes }},
		{"a push/pull", "B", func(f figures) float64 { return f.PushPullBytes }},
		{"CPU of a push/pull, both hosts", "µs", figures.pushPullCPU},
		{"memory", "B", func(f figures) float64 { return f.Memory }},
	} {
		l := model(all, m.of)
		r.Row(m.what, fmt.Sprintf("%.0f + %.3f N %s", l.fixed, l.each, m.unit), fmt.Sprintf("%.0f %s", l.at(modeled), m.unit))
	}
	sixty, grown, pushPulls := idleCPU(all, modeled)
	last := all[len(all)-1]
	r.Row("CPU: among sixty, more for each host, a push/pull each 30 (⌈log₂(N/32)⌉ + 1) s", fmt.Sprintf("%.0f + %.3f N µs/s + push/pulls", sixty, last.grownCPU()/float64(last.Hosts)),
		fmt.Sprintf("%.0f + %.0f + %.0f µs/s = %.3f %% of a core", sixty, grown, pushPulls, (sixty+grown+pushPulls)/1e4))
	bytes := model(all, func(f figures) float64 { return f.PacketBytes }).at(modeled) + model(all, func(f figures) float64 { return f.PushPullBytes }).at(modeled)/between(modeled)
	r.Row("bytes sent by it, packets and half of the two push/pulls that it has then", "", fmt.Sprintf("%.0f B/s", bytes))
	return r
}
