package bench

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
)

const feedKey = "bWVpYm8gYmVuY2ggZmVlZCBrZXkgMDEyMzQ1Njc4OWE="

// realHost is the built binary on a loopback address of its own.
type realHost struct {
	addr string
	dir  string
	conf string
	cmd  *exec.Cmd
}

// realCluster is three servers and what else joins them.
type realCluster struct {
	t       *testing.T
	bin     string
	extra   string // further configuration of all
	servers []*realHost
	others  []*realHost
}

func newRealCluster(t *testing.T, extra string) *realCluster {
	bin, err := hosttest.Binary()
	hosttest.Must(t, err)
	c := &realCluster{t: t, bin: bin, extra: extra}
	for i := range 3 {
		c.servers = append(c.servers, c.host(i+1, "server = true\nbootstrap_expect = 3\n"))
	}
	for _, h := range c.servers {
		c.start(h)
	}
	return c
}

// host writes the configuration of the n-th host.
func (c *realCluster) host(n int, more string) *realHost {
	c.t.Helper()
	h := &realHost{addr: fmt.Sprintf("127.1.0.%d", n), dir: c.t.TempDir()}
	h.conf = filepath.Join(h.dir, "agent.hcl")
	text := fmt.Sprintf(`node_name = "real-%d"
bind_addr = %q
client_addr = %q
data_dir = %q
cache_dir = %q
encrypt = %q
retry_join = ["127.1.0.1", "127.1.0.2", "127.1.0.3"]
retry_interval = "1s"
recursors = ["127.0.0.1:9"]
listen = ["%s:8600"]
log_level = "WARN"
hosts { files = [] }
`, n, h.addr, h.addr, filepath.Join(h.dir, "data"), filepath.Join(h.dir, "cache"), feedKey, h.addr)
	if err := os.WriteFile(h.conf, []byte(text+c.extra+more), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return h
}

func (c *realCluster) start(h *realHost) {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	h.cmd = exec.Command(c.bin, "agent", "-config-file", h.conf)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (h *realHost) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

func (c *realCluster) stop() {
	for _, h := range append(slices.Clone(c.servers), c.others...) {
		if c.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(h.dir, "log"))
			c.t.Logf("%s said:\n%.4000s", h.addr, text)
		}
		h.kill()
	}
}

func (c *realCluster) links() (addrs []string) {
	for _, h := range c.servers {
		addrs = append(addrs, h.addr+":8300")
	}
	return addrs
}

// leader waits until there is one and returns it.
func (c *realCluster) leader() *realHost {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		for _, h := range c.servers {
			var addr string
			if h.get("/v1/status/leader", &addr) == nil && addr != "" {
				for _, l := range c.servers {
					if strings.HasPrefix(addr, l.addr+":") {
						return l
					}
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatal("no leader within 30 s")
	return nil
}

var feedHTTP = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}

func (h *realHost) get(path string, into any) error {
	res, err := feedHTTP.Get("http://" + h.addr + ":8500" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s on %s: %s", path, h.addr, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// register writes a registration into the catalog.
func (h *realHost) register(body string) error {
	req, err := http.NewRequest(http.MethodPut, "http://"+h.addr+":8500/v1/catalog/register", strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := feedHTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("register on %s: %s %s", h.addr, res.Status, text)
	}
	return err
}

// fill registers bodies, several at a time.
func (c *realCluster) fill(bodies []string) {
	c.t.Helper()
	leader := c.leader()
	work := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for body := range work {
				err := leader.register(body)
				for range 5 { // while another server comes to lead
					if err == nil {
						break
					}
					err = leader.register(body)
				}
				if err != nil {
					c.t.Error(err)
				}
			}
		})
	}
	for _, body := range bodies {
		work <- body
	}
	close(work)
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// cpu is what the servers have used so far, to 10 ms each.
func (c *realCluster) cpu() time.Duration {
	c.t.Helper()
	return serversCPU(c.t, c.servers)
}

func serversCPU(t *testing.T, hosts []*realHost) (sum time.Duration) {
	t.Helper()
	for _, h := range hosts {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, ticks := range f[11:13] { // utime, stime: proc_pid_stat(5)
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// held is the memory that the servers hold after a collection, goroutines' stacks included.
func (c *realCluster) held() (sum float64) {
	c.t.Helper()
	for _, h := range c.servers {
		least, collections := h.memory(c.t)
		for until := collections + 2; collections < until; { // each scrape makes garbage, so that the collector runs
			var now float64
			if now, collections = h.memory(c.t); now < least {
				least = now
			}
		}
		sum += least
	}
	return sum
}

// memory is what the process holds, garbage included, and how often it has collected that.
func (h *realHost) memory(t *testing.T) (sum, collections float64) {
	t.Helper()
	res, err := feedHTTP.Get("http://" + h.addr + ":8500/v1/agent/metrics?format=prometheus")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil: // not a sample
		case name == "go_memstats_heap_alloc_bytes", name == "go_memstats_stack_inuse_bytes":
			sum += value
		case name == "go_gc_duration_seconds_count":
			collections = value
		}
	}
	return sum, collections
}

// children are the processes that play hosts.
type children struct {
	t      *testing.T
	stdin  []io.WriteCloser
	cmds   []*exec.Cmd
	events chan hostsEvent
	began  time.Time
	ended  sync.WaitGroup
}

// play starts count hosts in so many processes.
func (c *realCluster) play(count, processes int, names []string) *children {
	c.t.Helper()
	key, err := base64.StdEncoding.DecodeString(feedKey)
	if err != nil {
		c.t.Fatal(err)
	}
	p := &children{t: c.t, events: make(chan hostsEvent, 1024), began: time.Now()}
	for i := range processes {
		cfg := hostsConfig{First: i * count / processes, Servers: c.links(), Key: key, Names: names}
		cfg.Count = (i+1)*count/processes - cfg.First
		text, err := json.Marshal(cfg)
		if err != nil {
			c.t.Fatal(err)
		}
		p.start(string(text))
	}
	return p
}

func (p *children) start(cfg string) {
	p.t.Helper()
	// Real hosts have processors of their own: what these need is not taken from the servers.
	cmd := exec.Command("nice", "-n", "19", os.Args[0], "-test.run=^TestFeedHosts$", "-test.timeout=30m")
	cmd.Env = append(os.Environ(), hostsVar+"="+cfg)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stdin, p.cmds = append(p.stdin, in), append(p.cmds, cmd)
	p.ended.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e hostsEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.What != "" {
				p.events <- e
			}
		}
	})
}

// times waits until every process has said what, and returns all times.
func (p *children) times(what string, seq uint64) (times []int64) {
	p.t.Helper()
	deadline := time.After(2 * time.Minute)
	for n := 0; n < len(p.cmds); {
		select {
		case e := <-p.events:
			if e.What == what && e.Seq == seq {
				times = append(times, e.Times...)
				n++
			}
		case <-deadline:
			p.t.Fatalf("%d of %d processes said %q within 2 minutes", n, len(p.cmds), what)
		}
	}
	slices.Sort(times)
	return times
}

// confirmed waits until all hosts are confirmed after a time.
func (p *children) confirmed(after time.Time) []int64 {
	p.t.Helper()
	for _, in := range p.stdin {
		if _, err := fmt.Fprintln(in, after.UnixNano()); err != nil {
			p.t.Fatal(err)
		}
	}
	return p.times("confirmed", 0)
}

func (p *children) stop() {
	for _, in := range p.stdin {
		_ = in.Close()
	}
	p.ended.Wait()
	for _, cmd := range p.cmds {
		_ = cmd.Wait()
	}
}
