// Package servers starts meibo's servers as processes of the built binary, each on a loopback address of its own, and reads
// what they use. It is for benchmarks.
package servers

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

// Key is the secret of the clusters that are measured.
var Key = []byte("meibo bench cluster key 01234567")

// serverConfig makes a host one of three servers.
const serverConfig = "server = true\nbootstrap_expect = 3\n"

// Server is a process, and where its files are. Its methods are for one goroutine at a time, but Get, Register and those
// that read what it uses.
type Server struct {
	Addr string // without a port
	dir  string
	args []string
	cmd  *exec.Cmd
}

// New makes the n-th host, 127.1.0.n, with files in a folder of its own below dir. config is added to what every host has,
// which is to join the first three. It starts nothing.
func New(bin, dir string, n int, config string) (*Server, error) {
	s := &Server{Addr: fmt.Sprintf("127.1.0.%d", n), dir: filepath.Join(dir, fmt.Sprintf("host-%d", n))}
	conf := filepath.Join(s.dir, "agent.hcl")
	text := fmt.Sprintf(`node_name = "real-%d"
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
%s`, n, s.Addr, s.Addr, filepath.Join(s.dir, "data"), base64.StdEncoding.EncodeToString(Key), s.Addr, config)
	s.args = []string{bin, "agent", "-config-file", conf}
	return s, errors.Join(os.MkdirAll(s.dir, 0o700), os.WriteFile(conf, []byte(text), 0o600))
}

// Program makes a host of another program that has Consul's API on the ports of its address.
func Program(dir, addr string, args ...string) (*Server, error) {
	s := &Server{Addr: addr, dir: filepath.Join(dir, filepath.Base(args[0])), args: args}
	return s, os.MkdirAll(s.dir, 0o700)
}

// Start starts the process, again if it was killed. It ends with this one at the latest.
func (s *Server) Start() error {
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

// Kill ends the process at once, if it runs.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// Cluster is three servers.
type Cluster []*Server

// Start starts three servers with files below dir. config is added to the configuration of each.
func Start(bin, dir, config string) (Cluster, error) {
	var c Cluster
	for i := range 3 {
		s, err := New(bin, dir, i+1, serverConfig+config)
		if err == nil {
			err = s.Start()
		}
		if err != nil {
			c.Kill()
			return nil, err
		}
		c = append(c, s)
	}
	return c, nil
}

// Kill ends all.
func (c Cluster) Kill() {
	for _, s := range c {
		s.Kill()
	}
}

// Logs is what the servers have said last, for when something failed.
func (c Cluster) Logs() string {
	var b strings.Builder
	for _, s := range c {
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		fmt.Fprintf(&b, "%s said at last:\n%s\n", s.Addr, text[max(0, len(text)-4000):])
	}
	return b.String()
}

// Links are the addresses where hosts get their streams.
func (c Cluster) Links() (addrs []string) {
	for _, s := range c {
		addrs = append(addrs, s.Addr+":8300")
	}
	return addrs
}

// Leader waits until one leads, for a minute at most.
func (c Cluster) Leader() (*Server, error) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, s := range c {
			var addr string
			if s.Get("/v1/status/leader", &addr) != nil || addr == "" {
				continue
			}
			for _, l := range c {
				if strings.HasPrefix(addr, l.Addr+":") {
					return l, nil
				}
			}
		}
	}
	return nil, errors.New("no server led within a minute")
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// Get decodes the answer of an HTTP endpoint.
func (s *Server) Get(path string, into any) error {
	res, err := client.Get("http://" + s.Addr + ":8500" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s on %s: %s", path, s.Addr, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// Register writes a registration into the catalog.
func (s *Server) Register(body string) error {
	req, err := http.NewRequest(http.MethodPut, "http://"+s.Addr+":8500/v1/catalog/register", strings.NewReader(body))
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
		err = fmt.Errorf("register on %s: %s %s", s.Addr, res.Status, bytes.TrimSpace(text))
	}
	return err
}

// Fill registers n bodies, many at a time, and each again while another server comes to lead. progress is called with how
// many there are, by several goroutines; it may be nil.
func (s *Server) Fill(n int, body func(i int) string, progress func(done int)) error {
	var next, done atomic.Int64
	var errs [32]error
	var wg sync.WaitGroup
	for k := range errs {
		wg.Go(func() {
			for errs[k] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[k] = s.Register(body(i))
				for range 5 {
					if errs[k] != nil {
						errs[k] = s.Register(body(i))
					}
				}
				if now := int(done.Add(1)); progress != nil {
					progress(now)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// CPU is the processor time that processes have used so far, to 10 ms each.
func (c Cluster) CPU() (sum time.Duration) {
	for _, s := range c {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for i := 11; i < 13 && i < len(f); i++ { // utime, stime: proc_pid_stat(5)
			n, _ := strconv.ParseInt(f[i], 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// Resident is the memory of the process, in octets.
func (s *Server) Resident() int64 { return Resident(s.cmd.Process.Pid) }

// Resident is the memory of a process, in octets; 0 if it has ended.
func Resident(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// Metrics are the host's metrics, summed over their labels.
func (s *Server) Metrics() (map[string]float64, error) {
	res, err := client.Get("http://" + s.Addr + ":8500/v1/agent/metrics?format=prometheus")
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
