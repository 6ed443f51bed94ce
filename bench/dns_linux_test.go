package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meibo/bench/report"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	dnsZone     = "bench." // what the upstream has a wildcard in
	dnsRowTime  = 2 * time.Second
	dnsNew      = 60_000 // names of a row of names that were never asked before
	dnsCached   = 1_000  // names of the rows of cached names
	dnsMemory   = 100_000
	dnsUpstream = "127.0.53.1"
	dnsSecond   = "127.0.53.2" // another upstream
	dnsServer   = "127.0.0.1"  // the one that is measured; they take turns. BIND listens on addresses of interfaces alone
	dnsPort     = "10053"
)

// dnsLoad is what dnsperf is to do.
type dnsLoad struct {
	name    string
	queries string // lines of "NAME TYPE"; for each round anew
	args    []string
	warm    bool // asked once before
	noError bool // all answers must be good ones
	only    func(s *dnsPeer) bool
}

// dnsFigures are what one server did in one row of one round.
type dnsFigures struct {
	QPS, UserUS, AllUS, LatencyMS, LostPercent, ResidentMB float64
}

// TestDNSLoad measures meibo and its peers side by side: in each round each server is started anew on one CPU, with the
// load and the upstream on the other. A round takes five minutes and a quiet machine of two CPUs. MEIBO_BENCH_DNS_PEERS and
// MEIBO_BENCH_DNS_ROWS are regular expressions that choose some of both, for who works on one of them: nothing is written then.
func TestDNSLoad(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("MEIBO_BENCH_DNS"))
	if rounds == 0 {
		t.Skip("takes minutes: run make bench-dns")
	}
	root := os.Getenv("MEIBO_DNS_PEERS")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/dnsperf")); err != nil || root == "" || os.Getuid() != 0 || runtime.NumCPU() < 2 {
		t.Fatal("dnsperf, root and two CPUs are needed: run make bench-dns as root on Debian")
	}
	b := &dnsBench{t: t, root: root, dnsRounds: keptRounds(t)}
	rounds += b.Done
	b.devices()
	b.upstream = map[string]*exec.Cmd{dnsUpstream: b.startUpstream(dnsUpstream), dnsSecond: b.startUpstream(dnsSecond)}
	for round := b.Done; round < rounds; round++ {
		for _, s := range b.peers() {
			b.measure(s, round, rounds)
			if caches(s) {
				b.measureMemory(s, round, rounds)
				b.measureFaults(s, round, rounds)
			}
		}
		b.Done++
		b.keep(t)
	}
	if isWhole() {
		report.Write(t, "RESULTS.md", "make bench-dns", slices.Concat([]report.Table{b.versions(rounds)}, b.tables(), b.waitTables())...)
	}
}

// chosen tells whether a regular expression in the environment, if there is one, matches name.
func chosen(env, name string) bool {
	return regexp.MustCompile(os.Getenv(env)).MatchString(name)
}

type dnsBench struct {
	t    *testing.T
	root string
	seq  int
	dnsRounds

	upstream map[string]*exec.Cmd // by address
}

// dnsRounds are the figures of the rounds that are done.
type dnsRounds struct {
	Commit string // of the working copy
	Done   int
	Rows   []string
	All    map[string]map[string][]dnsFigures // by row and server
	Waits  map[string]map[string][]dnsWaits   // the same
}

// isWhole reports whether no part of the peers and rows was chosen.
func isWhole() bool {
	return os.Getenv("MEIBO_BENCH_DNS_PEERS") == "" && os.Getenv("MEIBO_BENCH_DNS_ROWS") == ""
}

// keptRounds are those that earlier runs on the same commit kept in the file MEIBO_BENCH_DNS_KEEP: five rounds are a long
// run.
func keptRounds(t *testing.T) dnsRounds {
	t.Helper()
	commit, _ := exec.Command("git", "rev-parse", "HEAD").Output()
	none := dnsRounds{Commit: strings.TrimSpace(string(commit)), All: map[string]map[string][]dnsFigures{}, Waits: map[string]map[string][]dnsWaits{}}
	text, err := os.ReadFile(os.Getenv("MEIBO_BENCH_DNS_KEEP"))
	if err != nil {
		return none
	}
	var kept dnsRounds
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatalf("%s: %v: remove it to begin with the first round", os.Getenv("MEIBO_BENCH_DNS_KEEP"), err)
	}
	if kept.Commit != none.Commit {
		return none
	}
	return kept
}

// keep keeps the rounds for the next run, where that is wanted.
func (b *dnsBench) keep(t *testing.T) {
	t.Helper()
	file := os.Getenv("MEIBO_BENCH_DNS_KEEP")
	if file == "" || !isWhole() {
		return
	}
	text, err := json.Marshal(b.dnsRounds)
	if err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// on starts a program of the peers' root, or one of this machine, on a CPU.
func (b *dnsBench) on(cpu int, chroot bool, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if chroot {
		cmd.Path, cmd.Err = name, nil
		cmd.SysProcAttr.Chroot, cmd.Dir = b.root, "/tmp"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}
	}
	return cmd
}

// start starts cmd with the affinity of the calling thread set for its moment: children inherit it.
func start(cmd *exec.Cmd, cpu int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &was)
	return cmd.Start()
}

func (b *dnsBench) file(name, text string) string {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.root, "tmp", name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return "/tmp/" + name
}

// devices makes what programs want to find in /dev, in the peers' own root.
func (b *dnsBench) devices() {
	b.t.Helper()
	for name, minor := range map[string]uint32{"null": 3, "random": 8, "urandom": 9} {
		err := unix.Mknod(filepath.Join(b.root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor)))
		if err != nil && err != unix.EEXIST {
			b.t.Fatalf("make /dev/%s in the peers' root: %v", name, err)
		}
	}
}

// startUpstream has NSD answer every name of the zone, beside the load.
func (b *dnsBench) startUpstream(addr string) *exec.Cmd {
	b.t.Helper()
	b.file("bench.zone", "$TTL 86400\n@ SOA ns host 1 7200 900 86400 300\n@ NS ns\nns A 192.0.2.53\n* A 192.0.2.1\n* A 192.0.2.2\n* A 192.0.2.3\n*.short 1 A 192.0.2.9\n")
	cmd := b.on(1, true, "/usr/sbin/nsd", "-d", "-c", b.file("nsd."+addr, nsdConf(addr)))
	b.run(cmd, 1, addr)
	return cmd
}

// run starts a server, waits for its first answer, and ends it with the test at the latest.
func (b *dnsBench) run(cmd *exec.Cmd, cpu int, addr string) (stop func()) {
	b.t.Helper()
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := start(cmd, cpu); err != nil {
		b.t.Fatalf("start %s: %v", cmd.Path, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	stop = func() { _ = cmd.Process.Kill(); <-done }
	b.t.Cleanup(stop)
	m := new(dns.Msg).SetQuestion("first."+dnsZone, dns.TypeA)
	client := dns.Client{Timeout: 200 * time.Millisecond}
	for deadline := time.Now().Add(15 * time.Second); ; {
		if r, _, err := client.Exchange(m, net.JoinHostPort(addr, dnsPort)); err == nil && r.Rcode == dns.RcodeSuccess {
			return stop
		}
		select {
		case <-done:
			b.t.Fatalf("%s ended:\n%s", cmd.Path, log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			stop()
			b.t.Fatalf("%s does not answer:\n%s", cmd.Path, log.String())
		}
	}
}

// names are n names that were never asked before.
func (b *dnsBench) names(n int, typ string) string {
	var s strings.Builder
	for range n {
		b.seq++
		fmt.Fprintf(&s, "n%d.%s %s\n", b.seq, dnsZone, typ)
	}
	return s.String()
}

func (b *dnsBench) measure(s *dnsPeer, round, rounds int) {
	cmd := s.start(b, dnsUpstream)
	stop := b.run(cmd, 0, dnsServer)
	defer stop()
	cached := b.names(dnsCached, "A")
	timed := []string{"-l", strconv.Itoa(int(dnsRowTime.Seconds()))}
	once := []string{"-n", "1", "-l", "20"}
	for _, l := range []dnsLoad{
		{name: "every name new, forwarded", queries: b.names(dnsNew, "A"), args: once, only: forwards},
		{name: "cached, UDP", queries: cached, args: timed, warm: true, only: answers},
		{name: "cached, TCP", queries: cached, args: append([]string{"-m", "tcp"}, timed...), warm: true, only: pipelines},
		{name: "cached, 1,000 a second", queries: cached, args: append([]string{"-Q", "1000"}, timed...), warm: true, only: answers},
		{name: "`.consul` A, three instances", queries: "web.service.consul A\n", args: timed, only: isConsul},
		{name: "`.consul` SRV, three instances", queries: "web.service.consul SRV\n", args: timed, only: isConsul},
	} {
		if l.only != nil && !l.only(s) || !chosen("MEIBO_BENCH_DNS_ROWS", l.name) {
			continue
		}
		if l.warm {
			b.load(cmd, dnsLoad{name: l.name, queries: l.queries, args: once})
		}
		b.note(s, l.name, b.load(cmd, l), round, rounds)
	}
}

// note keeps what a server did in a row, and tells it.
func (b *dnsBench) note(s *dnsPeer, row string, f dnsFigures, round, rounds int) {
	if b.All[row] == nil {
		b.All[row], b.Rows = map[string][]dnsFigures{}, append(b.Rows, row)
	}
	b.All[row][s.name] = append(b.All[row][s.name], f)
	fmt.Fprintf(os.Stderr, "round %d of %d  %-16s %-32s %9.0f q/s  %6.2f µs (%.2f in user space)  lost %.2f %%  %4.0f MB\n",
		round+1, rounds, s.name, row, f.QPS, f.AllUS, f.UserUS, f.LostPercent, f.ResidentMB)
}

var dnsperfFigure = regexp.MustCompile(`(?m)^\s+(Queries (?:sent|completed|lost|per second)|Average Latency \(s\)):\s+([0-9.]+)`)

// load runs dnsperf and reads what the server used meanwhile.
func (b *dnsBench) load(server *exec.Cmd, l dnsLoad) dnsFigures {
	b.t.Helper()
	file := b.file("queries", l.queries)
	args := append([]string{"-s", dnsServer, "-p", dnsPort, "-d", file, "-q", "200", "-c", "8", "-t", "3"}, l.args...)
	cmd := b.on(1, true, "/usr/bin/dnsperf", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	user, system := cpuOf(b.t, server.Process.Pid)
	if err := start(cmd, 1); err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.t.Fatalf("dnsperf: %v\n%s", err, out.String())
	}
	user2, system2 := cpuOf(b.t, server.Process.Pid)
	figures := map[string]float64{}
	for _, m := range dnsperfFigure.FindAllStringSubmatch(out.String(), -1) {
		figures[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	if n := figures["Queries completed"]; l.noError && !strings.Contains(out.String(), fmt.Sprintf("NOERROR %.0f (100.00%%)", n)) {
		b.t.Logf("%s: not all of %.0f answers were right:\n%s", l.name, n, out.String())
	}
	n := figures["Queries completed"]
	if n == 0 {
		b.t.Fatalf("no query was answered:\n%s", out.String())
	}
	resident := 0.0
	for _, p := range familyOf(server.Process.Pid) {
		pid, _ := strconv.Atoi(p[0])
		resident += float64(residentBytes(b.t, pid))
	}
	perQuery := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / n }
	return dnsFigures{
		QPS: figures["Queries per second"], LatencyMS: 1000 * figures["Average Latency (s)"],
		LostPercent: 100 * figures["Queries lost"] / figures["Queries sent"],
		UserUS:      perQuery(user2 - user), AllUS: perQuery(user2 - user + system2 - system),
		ResidentMB: resident / (1 << 20),
	}
}

// cpuOf is the CPU time that a process and those below it have used. (proc(5): clock ticks, of 10 ms)
func cpuOf(t testing.TB, pid int) (user, system time.Duration) {
	t.Helper()
	ticks := func(n string) time.Duration {
		v, _ := strconv.ParseInt(n, 10, 64)
		return time.Duration(v) * 10 * time.Millisecond
	}
	for _, p := range familyOf(pid) {
		user += ticks(p[13]) + ticks(p[15])
		system += ticks(p[14]) + ticks(p[16])
	}
	return user, system
}

// familyOf is the fields of /proc/PID/stat of a process and of all below it: NSD answers in a child.
func familyOf(pid int) [][]string {
	byParent := map[string][][]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var family [][]string
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		id, rest, _ := strings.Cut(string(text), " ")
		end := strings.LastIndexByte(rest, ')')
		fields := append([]string{id, rest[:end+1]}, strings.Fields(rest[end+1:])...)
		byParent[fields[3]] = append(byParent[fields[3]], fields)
		if id == strconv.Itoa(pid) {
			family = append(family, fields)
		}
	}
	for i := 0; i < len(family); i++ {
		family = append(family, byParent[family[i][0]]...)
	}
	return family
}

// tables are a row for each server in each kind of load, medians of the rounds.
func (b *dnsBench) tables() []report.Table {
	var out []report.Table
	for _, row := range b.Rows {
		var r report.Table
		r.Row(row, "CPU per query", "of it in user space", "queries a second", "mean latency", "lost", "resident")
		servers := b.All[row]
		median := func(name string, of func(dnsFigures) float64) float64 {
			values := make([]float64, 0, len(servers[name]))
			for _, f := range servers[name] {
				values = append(values, of(f))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		cpu := func(f dnsFigures) float64 { return f.AllUS }
		names := make([]string, 0, len(servers))
		for name := range servers {
			names = append(names, name)
		}
		slices.SortFunc(names, func(x, y string) int { return cmp.Compare(median(x, cpu), median(y, cpu)) })
		for _, name := range names {
			r.Row(name, fmt.Sprintf("%.2f µs", median(name, cpu)),
				fmt.Sprintf("%.2f µs", median(name, func(f dnsFigures) float64 { return f.UserUS })),
				fmt.Sprintf("%.0f", median(name, func(f dnsFigures) float64 { return f.QPS })),
				fmt.Sprintf("%.2f ms", median(name, func(f dnsFigures) float64 { return f.LatencyMS })),
				fmt.Sprintf("%.2f %%", median(name, func(f dnsFigures) float64 { return f.LostPercent })),
				fmt.Sprintf("%.0f MB", median(name, func(f dnsFigures) float64 { return f.ResidentMB })))
		}
		out = append(out, r)
	}
	return out
}
