package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"

	"github.com/miekg/dns"
)

const (
	soakRate     = 2000            // queries a second
	soakServices = 200             // that come and go
	soakLook     = 5 * time.Second // between two looks, at least
	soakLooks    = 120             // and about so many
	soakSlack    = 1.10            // what the last third may be above the second
)

// soakSample is one look at the daemon.
type soakSample struct {
	at                              time.Duration
	memory, heap, goroutines, files float64
}

// TestSoak runs one daemon for MEIBO_SOAK under load (names of its own, cached ones, new ones, TCP connections) while
// services come and go, its files are read again and its upstream is lost now and then. Memory, goroutines and descriptors
// must be flat from the second third on.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("MEIBO_SOAK"))
	if err != nil || length < time.Minute {
		t.Skip("takes a minute at least: run make soak")
	}
	dir := t.TempDir()
	dnsPort, httpPort := hosttest.FreePort(t), hosttest.FreePort(t)
	upstream, silent := soakUpstream(t)
	conf := fmt.Sprintf("bind_addr = \"127.0.0.1\"\nnode_name = \"soak\"\nrecursors = [%q]\nports { dns = %d http = %d server = %d serf_lan = %d }\nservice { name = \"web\" port = 80 }\n",
		upstream, dnsPort, httpPort, hosttest.FreePort(t), hosttest.FreePort(t))
	if err := os.WriteFile(filepath.Join(dir, "a.hcl"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	bin, err := hosttest.Binary()
	hosttest.Must(t, err)
	cmd := exec.Command(bin, "agent", "-config-dir", dir, "-data-dir", filepath.Join(dir, "data"), "-log-level", "error")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for !answered(dnsPort) {
	}
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	api := fmt.Sprintf("http://127.0.0.1:%d", httpPort)
	var asked, failed atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() { soakLoad(ctx, dnsPort, &asked, &failed) })
	wg.Go(func() { soakChurn(ctx, t, api) })
	wg.Go(func() {
		soakNow(ctx, 20*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGHUP) })
	})
	wg.Go(func() {
		soakNow(ctx, 30*time.Second, func() { silent.Store(!silent.Load()) })
	})
	var samples []soakSample
	began := time.Now()
	soakNow(ctx, max(soakLook, length/soakLooks), func() {
		s, err := lookAt(ctx, api)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("read the metrics: %v", err)
			}
			return
		}
		s.at = time.Since(began)
		samples = append(samples, s)
		fmt.Fprintf(os.Stderr, "%8s  %5.1f MB resident, %5.1f MB heap, %4.0f goroutines, %4.0f descriptors, %d asked, %d without an answer\n",
			s.at.Round(time.Second), s.memory/(1<<20), s.heap/(1<<20), s.goroutines, s.files, asked.Load(), failed.Load())
	})
	wg.Wait()
	if len(samples) < 9 {
		t.Fatalf("%d looks are too few to say anything", len(samples))
	}
	third := len(samples) / 3
	for _, what := range []struct {
		name string
		of   func(soakSample) float64
		more float64 // on top of the slack
	}{
		{"resident memory in MB", func(s soakSample) float64 { return s.memory / (1 << 20) }, 4},
		{"goroutines", func(s soakSample) float64 { return s.goroutines }, 20},
		{"descriptors", func(s soakSample) float64 { return s.files }, 20},
	} {
		second, last := soakMedian(samples[third:2*third], what.of), soakMedian(samples[2*third:], what.of)
		t.Logf("%s: %.1f in the second third, %.1f in the last", what.name, second, last)
		if last > second*soakSlack+what.more {
			t.Errorf("%s grow: %.1f, then %.1f", what.name, second, last)
		}
	}
	t.Logf("%d queries, %d without an answer (the upstream is silent half of the time)", asked.Load(), failed.Load())
}

func soakMedian(samples []soakSample, of func(soakSample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// soakNow calls f again and again until ctx ends.
func soakNow(ctx context.Context, every time.Duration, f func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// soakUpstream answers every name, with a short TTL, unless it is told to be silent.
func soakUpstream(t *testing.T) (addr string, silent *atomic.Bool) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent = new(atomic.Bool)
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if silent.Load() {
			return
		}
		r := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(192, 0, 2, 1)}}
		}
		_ = w.WriteMsg(r)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return conn.LocalAddr().String(), silent
}

// soakLoad asks over UDP, and one time in fifty over a TCP connection of its own.
func soakLoad(ctx context.Context, port int, asked, failed *atomic.Uint64) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	var wg sync.WaitGroup
	defer wg.Wait()
	began, seq := time.Now(), 0
	soakNow(ctx, 5*time.Millisecond, func() {
		for due := int(time.Since(began).Seconds() * soakRate); seq < due; seq++ {
			name := "web.service.consul."
			switch seq % 4 {
			case 1:
				name = fmt.Sprintf("known%d.example.", rand.IntN(2000))
			case 2:
				name = fmt.Sprintf("new%d.example.", seq)
			case 3:
				name = fmt.Sprintf("s%d.service.consul.", rand.IntN(soakServices))
			}
			client := &dns.Client{Timeout: 6 * time.Second}
			if seq%50 == 0 {
				client.Net = "tcp"
			}
			wg.Go(func() {
				asked.Add(1)
				r, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), addr)
				if (err != nil || r.Rcode == dns.RcodeServerFailure) && ctx.Err() == nil {
					failed.Add(1)
				}
			})
		}
	})
}

// soakChurn registers and deregisters services, ten a second.
func soakChurn(ctx context.Context, t *testing.T, api string) {
	put := func(path, body string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, api+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("%s: %v", path, err)
			}
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	there := map[int]bool{}
	soakNow(ctx, 100*time.Millisecond, func() {
		n := rand.IntN(soakServices)
		if there[n] = !there[n]; there[n] {
			put("/v1/agent/service/register", fmt.Sprintf(`{"ID":"s%d","Name":"s%d","Port":%d,"Check":{"TTL":"10m","Status":"passing"}}`, n, n, 1000+n))
		} else {
			put(fmt.Sprintf("/v1/agent/service/deregister/s%d", n), "")
		}
	})
}

// lookAt reads the daemon's metrics.
func lookAt(ctx context.Context, api string) (s soakSample, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	into := map[string]*float64{
		"process_resident_memory_bytes": &s.memory, "go_memstats_heap_inuse_bytes": &s.heap, "go_goroutines": &s.goroutines, "process_open_fds": &s.files,
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && into[name] != nil {
			if *into[name], err = strconv.ParseFloat(value, 64); err != nil {
				return s, err
			}
		}
	}
	return s, lines.Err()
}
