package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/servers"
)

// realCluster is three servers and what else joins them.
type realCluster struct {
	servers.Cluster
	t      *testing.T
	bin    string
	dir    string
	extra  string // further configuration of all
	others servers.Cluster
}

func newRealCluster(t *testing.T, extra string) *realCluster {
	t.Helper()
	bin, err := hosttest.Binary()
	hosttest.Must(t, err)
	c := &realCluster{t: t, bin: bin, dir: t.TempDir(), extra: extra}
	c.Cluster, err = servers.Start(bin, c.dir, extra)
	hosttest.Must(t, err)
	return c
}

// agent starts the n-th host, which is no server.
func (c *realCluster) agent(n int) *servers.Server {
	c.t.Helper()
	h, err := servers.New(c.bin, c.dir, n, c.extra)
	hosttest.Must(c.t, err)
	hosttest.Must(c.t, h.Start())
	c.others = append(c.others, h)
	return h
}

func (c *realCluster) stop() {
	if c.t.Failed() {
		c.t.Log(slices.Concat(c.Cluster, c.others).Logs())
	}
	c.Kill()
	c.others.Kill()
}

// leader waits until there is one and returns it.
func (c *realCluster) leader() *servers.Server {
	c.t.Helper()
	l, err := c.Leader()
	hosttest.Must(c.t, err)
	return l
}

// fill registers bodies, several at a time.
func (c *realCluster) fill(bodies []string) {
	c.t.Helper()
	hosttest.Must(c.t, c.leader().Fill(len(bodies), func(i int) string { return bodies[i] }, nil))
}

// held is the memory that the servers hold after a collection, goroutines' stacks included.
func (c *realCluster) held() (sum float64) {
	c.t.Helper()
	for _, h := range c.Cluster {
		least, collections := memory(c.t, h)
		for until := collections + 2; collections < until; { // each scrape makes garbage, so that the collector runs
			var now float64
			if now, collections = memory(c.t, h); now < least {
				least = now
			}
		}
		sum += least
	}
	return sum
}

// memory is what the process holds, garbage included, and how often it has collected that.
func memory(t *testing.T, h *servers.Server) (sum, collections float64) {
	t.Helper()
	m, err := h.Metrics()
	hosttest.Must(t, err)
	return m["go_memstats_heap_alloc_bytes"] + m["go_memstats_stack_inuse_bytes"], m["go_gc_duration_seconds_count"]
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
	p := &children{t: c.t, events: make(chan hostsEvent, 1024), began: time.Now()}
	for i := range processes {
		cfg := hostsConfig{First: i * count / processes, Servers: c.Links(), Key: servers.Key, Names: names}
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
