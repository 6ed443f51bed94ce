package bench

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"meibo/bench/report"

	"github.com/miekg/dns"
)

// measureMemory fills a new server with names, and asks for all of them again while the upstream is stopped: so they are all
// there.
func (b *dnsBench) measureMemory(s *dnsPeer, round, rounds int) {
	const row = "100,000 names cached"
	if !chosen("MEIBO_BENCH_DNS_ROWS", row) {
		return
	}
	cmd := s.start(b, dnsUpstream)
	defer b.run(cmd, 0, dnsServer)()
	l := dnsLoad{name: row, queries: b.names(dnsMemory, "A"), args: []string{"-n", "1", "-l", "30"}}
	b.load(cmd, l)
	defer b.stopUpstream(dnsUpstream)()
	l.noError = true
	b.note(s, row+", the second time", b.load(cmd, l), round, rounds)
}

// stopUpstream has an upstream say nothing until resume is called.
func (b *dnsBench) stopUpstream(addr string) (resume func()) {
	b.t.Helper()
	signal := func(sig syscall.Signal) {
		for _, p := range familyOf(b.upstream[addr].Process.Pid) {
			var pid int
			fmt.Sscan(p[0], &pid)
			if err := syscall.Kill(pid, sig); err != nil {
				b.t.Fatalf("signal the upstream: %v", err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// dnsWaits are what clients waited for.
type dnsWaits struct {
	First, Rest time.Duration // p99 of the first second, then of what came after; or the first answer, then p99
	Failed      int
}

const (
	silentRow = "one of two upstreams silent, new names"
	staleRow  = "all upstreams silent, expired names"
)

// measureFaults takes upstreams away from a new server, and measures what its clients wait.
func (b *dnsBench) measureFaults(s *dnsPeer, round, rounds int) {
	if chosen("MEIBO_BENCH_DNS_ROWS", silentRow) {
		// Whichever the server likes better: the worse one counts.
		w, other := b.oneSilent(s, dnsSecond), b.oneSilent(s, dnsUpstream)
		b.noteWaits(s, silentRow, dnsWaits{max(w.First, other.First), max(w.Rest, other.Rest), max(w.Failed, other.Failed)}, round, rounds)
	}
	if chosen("MEIBO_BENCH_DNS_ROWS", staleRow) {
		b.noteWaits(s, staleRow, b.allSilent(s), round, rounds)
	}
}

func (b *dnsBench) noteWaits(s *dnsPeer, row string, w dnsWaits, round, rounds int) {
	if b.Waits[row] == nil {
		b.Waits[row] = map[string][]dnsWaits{}
	}
	b.Waits[row][s.name] = append(b.Waits[row][s.name], w)
	fmt.Fprintf(os.Stderr, "round %d of %d  %-16s %-40s first %v, then %v, %d failed\n", round+1, rounds, s.name, row,
		w.First.Round(10*time.Microsecond), w.Rest.Round(10*time.Microsecond), w.Failed)
}

// oneSilent asks 200 times a second for new names, five seconds long, from the moment on that one of two upstreams is
// silent.
func (b *dnsBench) oneSilent(s *dnsPeer, silent string) dnsWaits {
	defer b.run(s.start(b, dnsSecond, dnsUpstream), 0, dnsServer)()
	b.load(b.upstream[silent], dnsLoad{name: "both answer", queries: b.names(2000, "A"), args: []string{"-n", "1", "-l", "10"}})
	defer b.stopUpstream(silent)()
	var mu sync.Mutex // guards the rest
	var first, rest []time.Duration
	failed := 0
	var wg sync.WaitGroup
	names := strings.Fields(strings.ReplaceAll(b.names(1000, "A"), " A", ""))
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for _, name := range names {
		at := time.Since(began)
		wg.Go(func() {
			took, ok := askOnce(name)
			mu.Lock()
			defer mu.Unlock()
			if !ok {
				failed++
			}
			if at < time.Second {
				first = append(first, took)
			} else {
				rest = append(rest, took)
			}
		})
		<-tick.C
	}
	wg.Wait()
	return dnsWaits{p99(first), p99(rest), failed}
}

// allSilent asks for names whose time is over while no upstream answers.
func (b *dnsBench) allSilent(s *dnsPeer) dnsWaits {
	defer b.run(s.start(b, dnsUpstream), 0, dnsServer)()
	b.seq++
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("n%d.r%d.short.%s", i, b.seq, dnsZone))
		askOnce(names[i])
	}
	defer b.stopUpstream(dnsUpstream)()
	<-time.After(2 * time.Second) // their TTL is 1 s
	w := dnsWaits{}
	var rest []time.Duration
	for i, name := range names {
		took, ok := askOnce(name)
		if !ok {
			w.Failed++
		}
		if i == 0 {
			w.First = took
		} else {
			rest = append(rest, took)
		}
		if w.Failed > 3 {
			break // each costs five seconds
		}
	}
	w.Rest = p99(rest)
	return w
}

// askOnce asks as glibc does, which waits five seconds.
func askOnce(name string) (time.Duration, bool) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	client := dns.Client{Timeout: 5 * time.Second}
	began := time.Now()
	r, _, err := client.Exchange(m, net.JoinHostPort(dnsServer, dnsPort))
	return time.Since(began), err == nil && r.Rcode == dns.RcodeSuccess && len(r.Answer) > 0
}

func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// waitTables are medians of the rounds.
func (b *dnsBench) waitTables() []report.Table {
	var out []report.Table
	for _, row := range []string{silentRow, staleRow} {
		servers := b.Waits[row]
		if len(servers) == 0 {
			continue
		}
		var r report.Table
		if row == silentRow {
			r.Row(row, "p99 of the first second", "p99 after that", "failed")
		} else {
			r.Row(row, "the first answer", "p99 after that", "failed")
		}
		median := func(name string, of func(dnsWaits) time.Duration) time.Duration {
			var values []time.Duration
			for _, w := range servers[name] {
				values = append(values, of(w))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		first := func(w dnsWaits) time.Duration { return w.First }
		names := make([]string, 0, len(servers))
		for name := range servers {
			names = append(names, name)
		}
		slices.SortFunc(names, func(x, y string) int { return cmp.Compare(median(x, first), median(y, first)) })
		for _, name := range names {
			failed := 0
			for _, w := range servers[name] {
				failed = max(failed, w.Failed)
			}
			r.Row(name, median(name, first).Round(10*time.Microsecond).String(),
				median(name, func(w dnsWaits) time.Duration { return w.Rest }).Round(10*time.Microsecond).String(), fmt.Sprint(failed))
		}
		out = append(out, r)
	}
	return out
}
