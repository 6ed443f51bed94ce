package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"

	"github.com/miekg/dns"
)

// The bars of one host today. Peers, measured: Consul's agent 96 MB resident, its binary 131 MB.
const (
	maxStart    = 200 * time.Millisecond // exec to the first NOERROR of a configured service without checks
	maxResident = 40 << 20               // bytes, idle; the goal is 25 MB
	maxBinary   = 20 << 20               // bytes, stripped
)

// TestFootprint prints start time, resident memory and binary size, and holds them to their bars in `make verify`.
func TestFootprint(t *testing.T) {
	bin, err := hosttest.Binary()
	hosttest.Must(t, err)
	info, err := os.Stat(bin)
	hosttest.Must(t, err)
	var starts []time.Duration
	var resident int64
	for range 5 {
		took, rss := startOnce(t, bin)
		starts = append(starts, took)
		resident = max(resident, rss)
	}
	slices.Sort(starts)
	median := starts[len(starts)/2]
	t.Logf("start to first NOERROR: median %v of 5 (%v to %v), bar %v", median, starts[0], starts[4], maxStart)
	t.Logf("idle resident memory:   %.1f MB, bar %d MB", float64(resident)/(1<<20), maxResident>>20)
	t.Logf("stripped binary:        %.1f MB, bar %d MB", float64(info.Size())/(1<<20), maxBinary>>20)
	if os.Getenv("MEIBO_VERIFY") == "" {
		return
	}
	if median > maxStart || resident > maxResident || info.Size() > maxBinary {
		t.Error("a bar is missed, see above")
	}
}

// BenchmarkFootprint reports the same three figures, averaged over its rounds (-benchtime 5x: five of them).
func BenchmarkFootprint(b *testing.B) {
	bin, err := hosttest.Binary()
	hosttest.Must(b, err)
	info, err := os.Stat(bin)
	hosttest.Must(b, err)
	var start time.Duration
	var resident int64
	for b.Loop() {
		took, rss := startOnce(b, bin)
		start, resident = start+took, resident+rss
	}
	b.ReportMetric(float64(start.Microseconds())/1000/float64(b.N), "ms-to-first-answer")
	b.ReportMetric(float64(resident)/(1<<20)/float64(b.N), "MB-resident")
	b.ReportMetric(float64(info.Size())/(1<<20), "MB-binary")
}

// startOnce starts the daemon anew in an empty data_dir, waits for its first answer, lets it idle, and reads its memory.
func startOnce(t testing.TB, bin string) (took time.Duration, resident int64) {
	t.Helper()
	dir := t.TempDir()
	dnsPort, httpPort := hosttest.FreePort(t), hosttest.FreePort(t)
	conf := filepath.Join(dir, "agent.hcl")
	text := fmt.Sprintf("node_name = \"h1\"\nbind_addr = \"127.0.0.1\"\nrecursors = [\"127.0.0.1:9\"]\nports { dns = %d http = %d }\nservice { name = \"web\" address = \"192.0.2.10\" port = 80 }\n", dnsPort, httpPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "agent", "-config-file", conf, "-data-dir", filepath.Join(dir, "data"))
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	for !answered(dnsPort) {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("no answer within 30 s")
		}
	}
	took = time.Since(begin)
	idle := time.NewTimer(3 * time.Second) // a measurement of the idle daemon has to let it idle
	<-idle.C
	return took, residentBytes(t, cmd.Process.Pid)
}

func answered(port int) bool {
	m := new(dns.Msg)
	m.SetQuestion("web.service.consul.", dns.TypeA)
	client := dns.Client{Timeout: 50 * time.Millisecond}
	reply, _, err := client.Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		retry := time.NewTimer(500 * time.Microsecond)
		<-retry.C
		return false
	}
	return reply.Rcode == dns.RcodeSuccess && len(reply.Answer) == 1
}

func residentBytes(t testing.TB, pid int) int64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
