package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// key is the secret of the cluster that is measured.
var key = []byte("meibo bench cluster key 01234567")

// server is a process of the built binary, on a loopback address of its own.
type server struct {
	addr, dir string
	cmd       *exec.Cmd
	args      []string
}

// servers are the three.
type servers struct {
	bin string
	all []*server
}

// start starts three servers that keep their data in a folder.
func startServers(bin, dir string) (*servers, error) {
	c := &servers{bin: bin}
	for i := range 3 {
		s := &server{addr: fmt.Sprintf("127.1.0.%d", i+1), dir: filepath.Join(dir, fmt.Sprintf("server-%d", i+1))}
		conf := filepath.Join(s.dir, "agent.hcl")
		text := fmt.Sprintf(`server = true
bootstrap_expect = 3
node_name = "server-%d"
bind_addr = %q
client_addr = %q
data_dir = %q
encrypt = %q
retry_join = ["127.1.0.1", "127.1.0.2", "127.1.0.3"]
retry_interval = "1s"
recursors = ["127.0.0.1:9"]
listen = ["%s:8600"]
log_level = "WARN"
hosts { files = [] }
cache { max_entries = 1 } # every lookup that comes over the network is answered from the view
`, i+1, s.addr, s.addr, filepath.Join(s.dir, "data"), base64.StdEncoding.EncodeToString(key), s.addr)
		if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.WriteFile(conf, []byte(text), 0o600)); err != nil {
			return nil, err
		}
		s.args = []string{bin, "agent", "-config-file", conf}
		if err := s.start(); err != nil {
			return nil, err
		}
		c.all = append(c.all, s)
	}
	return c, nil
}

func (s *server) start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return s.cmd.Start()
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (c *servers) stop() {
	for _, s := range c.all {
		s.kill()
	}
}

// logs is what the servers have said last, for when something failed.
func (c *servers) logs() string {
	var b strings.Builder
	for _, s := range c.all {
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		fmt.Fprintf(&b, "%s said at last:\n%s\n", s.addr, text[max(0, len(text)-2000):])
	}
	return b.String()
}

func (c *servers) links() (addrs []string) {
	for _, s := range c.all {
		addrs = append(addrs, s.addr+":8300")
	}
	return addrs
}

// leader waits until one leads.
func (c *servers) leader() (*server, error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, s := range c.all {
			var addr string
			if s.get("/v1/status/leader", &addr) != nil || addr == "" {
				continue
			}
			for _, l := range c.all {
				if strings.HasPrefix(addr, l.addr+":") {
					return l, nil
				}
			}
		}
	}
	return nil, errors.New("no server led within a minute")
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func (s *server) get(path string, into any) error {
	res, err := client.Get("http://" + s.addr + ":8500" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s on %s: %s", path, s.addr, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// register writes a registration into the catalog.
func (s *server) register(body string) error { return register("http://"+s.addr+":8500", body) }

func register(url, body string) error {
	req, err := http.NewRequest(http.MethodPut, url+"/v1/catalog/register", strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("register on %s: %s %s", url, res.Status, bytes.TrimSpace(text))
	}
	return err
}

// fill registers every instance, many at a time.
func fill(f fleet, put func(body string) error, progress func(done int)) error {
	var next, done atomic.Int64
	var errs [32]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= f.Services*f.Each || errs[i] != nil {
					return
				}
				body := f.register(n/f.Each, n%f.Each, "passing")
				errs[i] = put(body)
				for range 5 { // while another server comes to lead
					if errs[i] != nil {
						errs[i] = put(body)
					}
				}
				progress(int(done.Add(1)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// cpu is the processor time of processes so far, to 10 ms each.
func cpu(list ...*server) (sum time.Duration) {
	for _, s := range list {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for i := 11; i < 13 && i < len(f); i++ { // utime, stime: proc_pid_stat(5)
			n, _ := strconv.ParseInt(f[i], 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// resident is the memory of a process, in octets.
func resident(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// metrics are sums of a server's metrics over their labels.
func (s *server) metrics() (map[string]float64, error) {
	res, err := client.Get("http://" + s.addr + ":8500/v1/agent/metrics?format=prometheus")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	sums := make(map[string]float64)
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			sums[name] += value
		}
	}
	return sums, nil
}

// meter is what the servers have used and sent at a moment.
type meter struct {
	at              time.Time
	cpu             time.Duration
	bytes, pushes   float64
	streams         float64
	resident, first float64 // octets: of all, of the leader
}

// read reads it. A server that is down counts for nothing.
func (c *servers) read(leader *server) (m meter) {
	m.at, m.cpu = time.Now(), cpu(c.all...)
	for _, s := range c.all {
		values, err := s.metrics()
		if err != nil {
			continue
		}
		m.bytes += values["meibo_feed_sent_bytes_total"]
		m.pushes += values["meibo_feed_updates_total"]
		m.streams += values["meibo_feed_streams"]
		m.resident += float64(resident(s.cmd.Process.Pid))
	}
	m.first = float64(resident(leader.cmd.Process.Pid))
	return m
}
