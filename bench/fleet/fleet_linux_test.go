package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
)

// fleetKey is the secret of the test's clusters.
const fleetKey = "bWVpYm8gdGVzdCBmbGVldCBrZXkgMDEyMzQ1Njc4OWE="

// fleet is several hosts on one switch, each a network namespace of its own with one daemon in it.
type fleet struct {
	t      *testing.T
	net    *netswitch.Switch
	dir    string
	hosts  []*fleetHost
	made   []*fleetHost // hosts, outsiders too
	client *load
}

// fleetHost is one host of a fleet.
type fleetHost struct {
	fleet  *fleet
	n      byte
	name   string
	server bool
	dir    string
	proc   *hosttest.Process // nil while the daemon is down
	do     chan func()
	http   *http.Client
	key    string              // what encrypt is; "": not set
	extra  string              // further lines of configuration
	edit   func(string) string // changes the configuration, if not nil
}

// newFleet makes the hosts s1… (servers) and a1… (agents) and starts nothing. It must be called inHost.
func newFleet(t *testing.T, servers, agents int) *fleet {
	t.Helper()
	f := &fleet{t: t, net: netswitch.New(t), dir: t.TempDir()}
	for i := range servers + agents {
		name := fmt.Sprintf("s%d", i+1)
		if i >= servers {
			name = fmt.Sprintf("a%d", i+1-servers)
		}
		h := f.outsider(name, nil)
		h.server = i < servers
		f.hosts = append(f.hosts, h)
	}
	f.client = newLoad(f)
	t.Cleanup(f.tailLogs)
	t.Cleanup(f.keepLogs)
	return f
}

// tailLogs shows the end of what each host said, when the test has failed.
func (f *fleet) tailLogs() {
	const lines = 25
	if !f.t.Failed() {
		return
	}
	for _, h := range f.made {
		var said []string
		for line := range strings.Lines(h.log()) {
			if !strings.Contains(line, "level=DEBUG") {
				said = append(said, line)
			}
		}
		f.t.Logf("%s said last:\n%s", h.name, strings.Join(said[max(0, len(said)-lines):], ""))
	}
}

// keepLogs copies the daemons' logs to the folder that MEIBO_KEEP_LOGS names, if any.
func (f *fleet) keepLogs() {
	dir := os.Getenv("MEIBO_KEEP_LOGS")
	if dir == "" {
		return
	}
	dir = filepath.Join(dir, f.t.Name())
	_ = os.MkdirAll(dir, 0o755)
	for _, h := range f.made {
		_ = os.WriteFile(filepath.Join(dir, h.name+".log"), []byte(h.log()), 0o644)
	}
}

// outsider makes a host on the fleet's switch that is none of the fleet's: nobody waits for it, and no load asks it.
func (f *fleet) outsider(name string, edit func(config string) string) *fleetHost {
	f.t.Helper()
	h := &fleetHost{fleet: f, n: byte(len(f.made) + 1), name: name, key: fleetKey, edit: edit, dir: filepath.Join(f.dir, name)}
	f.made = append(f.made, h)
	hosttest.Must(f.t, os.MkdirAll(h.dir, 0o755))
	h.live(f.t)
	return h
}

// live makes the host's namespace, kept by a thread that runs what is to happen on the host.
func (h *fleetHost) live(t *testing.T) {
	t.Helper()
	h.do = h.fleet.net.Attach(t, h.n, netswitch.HostAddr(h.n), nil)
	h.http = &http.Client{Timeout: 12 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			h.inside(func() { c, err = net.DialTimeout(network, addr, 2*time.Second) })
			return c, err
		}}}
}

// inside runs f in the host's network namespace: sockets made there belong to it.
func (h *fleetHost) inside(f func()) {
	done := make(chan struct{})
	h.do <- func() { defer close(done); f() }
	<-done
}

func (h *fleetHost) addr() string { return netswitch.HostAddr(h.n).String() }

// config is the host's configuration file.
func (h *fleetHost) config() string {
	var join []string
	servers := 0
	for _, o := range h.fleet.hosts {
		if o.server {
			servers++
		}
		// Servers name each other, as people write it. For an agent somebody must be there to be asked when no server is.
		if o.server || !h.server && h.fleet.isFirstAgent(o) {
			join = append(join, o.addr())
		}
	}
	text := fmt.Sprintf(`
node_name  = %q
bind_addr  = %q
data_dir   = %q
cache_dir  = %q
retry_join = [%s]
retry_interval = "1s"
listen     = ["127.0.0.1:53"]
log_level  = "DEBUG"
enable_script_checks = false
performance { raft_multiplier = %d }
hosts { files = [] }
`, h.name, h.addr(), h.data(), h.cache(), `"`+strings.Join(join, `", "`)+`"`, raftMultiplier)
	if raftMultiplier == 0 {
		text = strings.Replace(text, "performance { raft_multiplier = 0 }\n", "", 1)
	}
	if h.key != "" {
		text += fmt.Sprintf("encrypt = %q\n", h.key)
	}
	if h.server {
		text += fmt.Sprintf("server = true\nbootstrap_expect = %d\n", servers)
	}
	if text += h.extra; h.edit != nil {
		text = h.edit(text)
	}
	return text
}

func (h *fleetHost) data() string  { return filepath.Join(h.dir, "data") }
func (h *fleetHost) cache() string { return filepath.Join(h.dir, "cache") }

// up starts the daemon; its services are to be there soon.
func (h *fleetHost) up() {
	h.fleet.t.Helper()
	h.start()
	h.fleet.client.began(h)
}

// start starts the daemon.
func (h *fleetHost) start() {
	t := h.fleet.t
	t.Helper()
	bin, err := fleetBinary()
	hosttest.Must(t, err)
	hosttest.WriteFile(t, h.dir, "meibo.hcl", h.config())
	cmd := exec.Command(bin, "agent", "-config-file", filepath.Join(h.dir, "meibo.hcl"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	h.inside(func() { h.proc = hosttest.StartAppending(t, cmd, filepath.Join(h.dir, "log")) })
}

// kill ends the daemon at once; its host lives, so that peers' packets are refused.
func (h *fleetHost) kill() {
	h.fleet.client.ended(h)
	_ = h.proc.Process.Kill()
	<-h.proc.Done
	h.proc = nil
}

// down ends the daemon the polite way.
func (h *fleetHost) down() {
	t := h.fleet.t
	t.Helper()
	h.fleet.client.ended(h)
	hosttest.Must(t, h.proc.Process.Signal(syscall.SIGTERM))
	if code := h.proc.Exit(t); code != 0 {
		t.Errorf("%s: after SIGTERM exit code %d", h.name, code)
	}
	h.proc = nil
}

func (h *fleetHost) signal(sig syscall.Signal) { hosttest.Must(h.fleet.t, h.proc.Process.Signal(sig)) }

// log is all that the host's daemons have said.
func (h *fleetHost) log() string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return string(b)
}

// get asks the host's own HTTP API.
func (h *fleetHost) get(path string, into any) error { return h.call("GET", path, "", into) }

// call sends a request to the host's own HTTP API and decodes the answer unless into is nil.
func (h *fleetHost) call(method, path, body string, into any) error {
	_, err := h.headed(method, path, body, into)
	return err
}

// headed is call, and gives the answer's header too.
func (h *fleetHost) headed(method, path, body string, into any) (http.Header, error) {
	req, err := http.NewRequest(method, "http://127.0.0.1:8500"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := h.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s %s on %s: %d %s", method, path, h.name, res.StatusCode, data)
	case into == nil:
		return res.Header, nil
	}
	return res.Header, json.Unmarshal(data, into)
}

// register makes the host offer a service, checked by a TTL that the test sets.
func (h *fleetHost) register(name string, port int) {
	h.fleet.t.Helper()
	body := fmt.Sprintf(`{"Name":%q,"ID":%q,"Port":%d,"Check":{"CheckID":"%s-up","TTL":"240h","Status":"passing"}}`, name, name, port, name)
	h.fleet.client.becomes(name, h, present, func() error { return h.call("PUT", "/v1/agent/service/register", body, nil) })
}

func (h *fleetHost) deregister(name string) {
	h.fleet.t.Helper()
	h.fleet.client.becomes(name, h, absent, func() error { return h.call("PUT", "/v1/agent/service/deregister/"+name, "", nil) })
}

// host is the host of that name.
func (f *fleet) host(name string) *fleetHost {
	f.t.Helper()
	for _, h := range f.hosts {
		if h.name == name {
			return h
		}
	}
	f.t.Fatalf("no host %s", name)
	return nil
}

func (f *fleet) servers() []*fleetHost {
	var list []*fleetHost
	for _, h := range f.hosts {
		if h.server {
			list = append(list, h)
		}
	}
	return list
}

func (f *fleet) agents() []*fleetHost {
	var list []*fleetHost
	for _, h := range f.hosts {
		if !h.server {
			list = append(list, h)
		}
	}
	return list
}

// start starts all daemons and waits until every host knows every other and each answers for all services: "web" on each
// agent, "api" on the first two of them, "db" on the first server.
func (f *fleet) start() {
	f.t.Helper()
	begin := time.Now()
	for _, h := range f.hosts {
		h.up()
	}
	f.whole()
	f.t.Logf("%d hosts are one cluster after %v", len(f.hosts), time.Since(begin).Round(time.Millisecond))
	f.offer()
}

// offer registers the services, and begins to ask for them.
func (f *fleet) offer() {
	f.t.Helper()
	for _, h := range f.agents() {
		h.register("web", 80)
	}
	for _, h := range f.agents()[:2] {
		h.register("api", 8080)
	}
	f.servers()[0].register("db", 5432)
	f.client.settled()
	f.client.run()
}

// whole waits until all running hosts see one another and a leader.
func (f *fleet) whole() time.Duration {
	f.t.Helper()
	return hosttest.Eventually(f.t, "the cluster is whole", func() error {
		for _, h := range f.hosts {
			if h.proc == nil {
				continue
			}
			if err := h.seesAll(); err != nil {
				return err
			}
		}
		return nil
	})
}

// seesAll reports which running host this one doesn't count as alive, or that it knows no leader.
func (h *fleetHost) seesAll() error {
	var members []struct {
		Name   string
		Status int
	}
	if err := h.get("/v1/agent/members", &members); err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.Name] = m.Status == 1
	}
	for _, o := range h.fleet.hosts {
		if o.proc != nil && !alive[o.name] {
			return fmt.Errorf("%s does not see %s alive: %v", h.name, o.name, alive)
		}
	}
	var leader string
	if err := h.get("/v1/status/leader", &leader); err != nil || leader == "" {
		return fmt.Errorf("%s knows no leader: %v", h.name, err)
	}
	return nil
}

// leader is the server that leads, as a running server says.
func (f *fleet) leader() *fleetHost {
	f.t.Helper()
	var found *fleetHost
	hosttest.Eventually(f.t, "a leader", func() error {
		for _, h := range f.servers() {
			var addr string
			if h.proc == nil || h.get("/v1/status/leader", &addr) != nil || addr == "" {
				continue
			}
			for _, o := range f.servers() {
				if o.proc != nil && strings.HasPrefix(addr, o.addr()+":") {
					found = o
					return nil
				}
			}
		}
		return fmt.Errorf("none")
	})
	return found
}

// between sets what happens on every path between two groups.
func (f *fleet) between(a, b []*fleetHost, p netswitch.Path) {
	for _, x := range a {
		for _, y := range b {
			if x != y {
				f.net.SetBoth(x.n, y.n, p)
			}
		}
	}
}

// fleetBinary is the daemon that fleets run: built with the race detector when this test is, else the plain one.
func fleetBinary() (string, error) {
	if raceEnabled {
		return hosttest.RaceBinary()
	}
	return hosttest.Binary()
}

func (f *fleet) isFirstAgent(h *fleetHost) bool {
	agents := f.agents()
	return len(agents) > 0 && h == agents[0]
}
