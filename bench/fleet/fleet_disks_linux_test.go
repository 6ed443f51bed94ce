package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"

	"golang.org/x/sys/unix"
)

// quickVotes has a new server vote soon, so that a test needn't wait for Consul's ten seconds.
const quickVotes = "autopilot { server_stabilization_time = \"1s\" }\n"

// TestFleet_AnswersWhileDisksFail fills disks, refuses writes and damages files, on servers and on agents.
func TestFleet_AnswersWhileDisksFail(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		for _, h := range f.servers() {
			h.extra = quickVotes
			smallDisk(t, h.data(), 48<<20) // what is set aside stays
		}
		smallDisk(t, f.host("a3").cache(), 32<<20)
		f.start()
		w := &recorder{from: f.host("a1")}
		f.fullServer(w)
		f.unwritableServer(w)
		f.logCutWhileRunning(w)
		f.logCutWhileStopped(w)
		f.damagedView(f.host("a2"), func(b []byte) []byte { return b[:len(b)/2] })
		f.damagedView(f.host("a1"), garbled)
		f.fullCache(f.host("a3"))
		f.whole()
		t.Logf("%d writes acknowledged of %d", len(w.wrote), w.n)
		hosttest.Eventually(t, "every acknowledged write on every server", func() error { return f.holds(w.wrote) })
		f.client.settled()
		f.client.check()
	})
}

// smallDisk gives a folder a file system of its own.
func smallDisk(t *testing.T, dir string, size int) {
	t.Helper()
	hosttest.Must(t, os.MkdirAll(dir, 0o755))
	hosttest.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	t.Cleanup(func() { hosttest.Must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// fillDisk leaves no free byte on the disk of a folder, and returns what frees them again.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	hosttest.Must(t, err)
	defer file.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	return func() { hosttest.Must(t, os.Remove(path)) }
}

// recorder writes to the catalog through one host, and remembers what was acknowledged.
type recorder struct {
	from  *fleetHost
	n     int
	wrote []string
}

// write registers one more external node of some kilobytes.
func (w *recorder) write() error {
	w.n++
	name := fmt.Sprintf("ext-%d", w.n)
	var meta []string
	for i := range 6 {
		meta = append(meta, fmt.Sprintf(`"k%d":%q`, i, strings.Repeat("x", 500)))
	}
	err := w.from.call("PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":%q,"Address":"192.0.2.1","NodeMeta":{%s}}`, name, strings.Join(meta, ",")), nil)
	if err == nil {
		w.wrote = append(w.wrote, name)
	}
	return err
}

// must writes until it is acknowledged.
func (w *recorder) must(times int) {
	t := w.from.fleet.t
	t.Helper()
	for range times {
		hosttest.Eventually(t, "a write", w.write)
	}
}

// holds reports which running server lacks one of the nodes.
func (f *fleet) holds(nodes []string) error {
	for _, s := range f.servers() {
		var have []struct{ Node string }
		if s.proc == nil {
			continue
		}
		if err := s.get("/v1/catalog/nodes?stale", &have); err != nil {
			return err
		}
		for _, want := range nodes {
			if !slices.ContainsFunc(have, func(n struct{ Node string }) bool { return n.Node == want }) {
				return fmt.Errorf("%s lacks %s, which was acknowledged", s.name, want)
			}
		}
	}
	return nil
}

// metric is the value of one of the host's metrics, as it is written.
func (h *fleetHost) metric(name string) (string, error) {
	res, err := h.http.Get("http://127.0.0.1:8500/metrics")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("metrics of %s: %d %w", h.name, res.StatusCode, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no metric %s", h.name, name)
}

// is reports that a metric has not the value.
func (h *fleetHost) is(name, want string) error {
	got, err := h.metric(name)
	if err == nil && got != want {
		err = fmt.Errorf("%s of %s is %s, want %s", name, h.name, got, want)
	}
	return err
}

// says reports that the host's log lacks a text behind an offset.
func (h *fleetHost) says(text string, since int) error {
	if !strings.Contains(h.log()[since:], text) {
		return fmt.Errorf("%s doesn't say %q", h.name, text)
	}
	return nil
}

// recovered waits until the server takes part again and has all that was acknowledged.
func (f *fleet) recovered(h *fleetHost, w *recorder) time.Duration {
	f.t.Helper()
	return hosttest.Eventually(f.t, h.name+" takes part again", func() error {
		if h.exited() {
			f.t.Fatalf("the daemon of %s died:\n%s", h.name, tail(h.log()))
		}
		if err := h.is("meibo_catalog_up", "1"); err != nil {
			return err
		}
		if err := f.holds(w.wrote); err != nil {
			return err
		}
		return f.voters(3)
	})
}

// exited reports whether the host's daemon ended by itself.
func (h *fleetHost) exited() bool {
	select {
	case <-h.proc.Done:
		return true
	default:
		return false
	}
}

func tail(log string) string { return log[max(0, len(log)-4000):] }

// fullServer fills the leader's disk.
func (f *fleet) fullServer(w *recorder) {
	f.t.Helper()
	victim := f.leader()
	since := len(victim.log())
	free := fillDisk(f.t, victim.data())
	begin := time.Now()
	hosttest.Eventually(f.t, "another server leads", func() error {
		if l := f.leader(); l == victim {
			return fmt.Errorf("%s, whose disk is full, leads", l.name)
		}
		return nil
	})
	w.must(1)
	took := time.Since(begin)
	hosttest.Eventually(f.t, "the full server says so", func() error { return victim.says("raft takes no writes", since) })
	// What is still free in its log is soon used up.
	hosttest.Eventually(f.t, "the full server can't follow", func() error {
		if err := w.write(); err != nil {
			return err
		}
		return victim.is("meibo_catalog_up", "0")
	})
	hosttest.Must(f.t, victim.says("catalog of this host failed", since))
	w.must(1)
	free()
	f.t.Logf("disk full on the leader: writes go on under another after %v; with space again it has caught up in %v",
		took.Round(time.Millisecond), f.recovered(victim, w).Round(time.Millisecond))
}

// unwritableServer has all writes to files fail on the leader.
func (f *fleet) unwritableServer(w *recorder) {
	f.t.Helper()
	victim := f.leader()
	pid := victim.proc.Process.Pid
	begin := time.Now()
	hosttest.Must(f.t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}, nil))
	hosttest.Eventually(f.t, "the server that can't write gives up its part", func() error {
		_ = w.write()
		return victim.is("meibo_catalog_up", "0")
	})
	w.must(1)
	took := time.Since(begin)
	var self struct{ Stats map[string]map[string]string }
	hosttest.Must(f.t, victim.get("/v1/agent/self", &self))
	if text := self.Stats["meibo"]["catalog_error"]; !strings.Contains(text, "file too large") {
		f.t.Errorf("%s says of its catalog: %q, want the write error", victim.name, text)
	}
	hosttest.Must(f.t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil))
	f.t.Logf("write errors on the leader: writes go on elsewhere after %v; when they end it has caught up in %v",
		took.Round(time.Millisecond), f.recovered(victim, w).Round(time.Millisecond))
}

func (h *fleetHost) raftFile() string { return filepath.Join(h.data(), "raft", "raft.db") }

// cutShort leaves both meta pages of a log, and nothing that they point at: whatever is read or written next finds it.
func cutShort(t *testing.T, path string) {
	t.Helper()
	hosttest.Must(t, os.Truncate(path, 2*4096))
}

// logCutWhileRunning takes nearly all of the log from under a follower.
func (f *fleet) logCutWhileRunning(w *recorder) {
	f.t.Helper()
	victim := f.follower()
	before, since := f.raftID(victim), len(victim.log())
	cutShort(f.t, victim.raftFile())
	w.must(1)
	hosttest.Eventually(f.t, "the server says that its files are damaged", func() error {
		if victim.exited() {
			f.t.Fatalf("the daemon of %s died:\n%s", victim.name, tail(victim.log()))
		}
		_ = w.write()
		return victim.says("comes back under a new ID", since)
	})
	took := f.recovered(victim, w)
	f.t.Logf("log cut short while running: a voter again under a new ID after %v", took.Round(time.Millisecond))
	f.otherID(victim, before)
}

// logCutWhileStopped takes nearly all of the log from a stopped server.
func (f *fleet) logCutWhileStopped(w *recorder) {
	f.t.Helper()
	victim := f.follower()
	before, since := f.raftID(victim), len(victim.log())
	victim.down()
	cutShort(f.t, victim.raftFile())
	victim.up()
	// Before it has looked into its files it counts as the voter that it was.
	took := hosttest.Eventually(f.t, "the server says that its files are damaged", func() error { return victim.says("comes back under a new ID", since) })
	took += f.recovered(victim, w)
	f.t.Logf("log cut short while stopped: a voter again under a new ID after %v", took.Round(time.Millisecond))
	f.otherID(victim, before)
}

// otherID checks that a server whose files are lost goes by another ID, and that the files were kept for people.
func (f *fleet) otherID(h *fleetHost, before string) {
	f.t.Helper()
	hosttest.Eventually(f.t, h.name+" lost its vote and has another ID", func() error {
		if now := f.raftID(h); now == before {
			return fmt.Errorf("it votes as %s still", now)
		}
		return f.voters(3)
	})
	if aside, _ := filepath.Glob(h.raftFile() + ".bad-*"); len(aside) == 0 {
		f.t.Errorf("%s: the damaged log was not set aside", h.name)
	}
}

// raftPeer is a server of the configuration.
type raftPeer struct {
	ID, RaftID, Node, Address string
	Leader, Voter             bool
}

// inRaft is its ID in the configuration.
func (p raftPeer) inRaft() string { return cmp.Or(p.RaftID, p.ID) }

// peers is the servers' configuration, as a host tells it.
func (h *fleetHost) peers() ([]raftPeer, error) {
	var conf struct{ Servers []raftPeer }
	err := h.get("/v1/operator/raft/configuration?stale", &conf)
	return conf.Servers, err
}

// raftID is the ID that a server goes by in Raft.
func (f *fleet) raftID(h *fleetHost) (id string) {
	f.t.Helper()
	hosttest.Eventually(f.t, "the ID of "+h.name, func() error {
		peers, err := f.leader().peers()
		for _, p := range peers {
			if strings.HasPrefix(p.Address, h.addr()+":") {
				id = p.inRaft()
				return nil
			}
		}
		return fmt.Errorf("none: %v %w", peers, err)
	})
	return id
}

// voters reports that the leader doesn't count so many voters and nobody else.
func (f *fleet) voters(n int) error {
	peers, err := f.leader().peers()
	if err != nil {
		return err
	}
	if len(peers) != n || slices.ContainsFunc(peers, func(p raftPeer) bool { return !p.Voter }) {
		return fmt.Errorf("servers: %+v, want %d voters", peers, n)
	}
	return nil
}

func (h *fleetHost) viewFile() string { return filepath.Join(h.cache(), "catalog.view") }

// garbled flips bits in the midst of a file.
func garbled(b []byte) []byte {
	for i := len(b) / 3; i < len(b)/3+64; i++ {
		b[i] ^= 0x55
	}
	return b
}

// damagedView damages the view of a host that is stopped.
func (f *fleet) damagedView(h *fleetHost, damage func([]byte) []byte) {
	f.t.Helper()
	h.down()
	b, err := os.ReadFile(h.viewFile())
	hosttest.Must(f.t, err)
	hosttest.Must(f.t, os.WriteFile(h.viewFile(), damage(b), 0o600))
	since := len(h.log())
	h.start() // until it has asked others it may know its own services alone, and say so of the rest
	took := hosttest.Eventually(f.t, "a host whose view is damaged answers", func() error { return f.exactElse(h) })
	f.client.began(h)
	hosttest.Must(f.t, h.says("last known view does not count, set aside", since))
	if aside, _ := filepath.Glob(h.viewFile() + ".set-aside-*"); len(aside) != 1 {
		f.t.Errorf("%s: set aside: %v, want one file", h.name, aside)
	}
	hosttest.Eventually(f.t, "the view is on disk anew", func() error { _, err := os.Stat(h.viewFile()); return err })
	f.t.Logf("view file damaged: all is answered %v after the start", took.Round(time.Millisecond))
}

// exactElse is exactOn for a host whose own services are not counted yet.
func (f *fleet) exactElse(h *fleetHost) error {
	for _, service := range f.client.services() {
		got := h.lookup(service)
		got.Addrs = slices.DeleteFunc(got.Addrs, func(a netip.Addr) bool { return a == netswitch.HostAddr(h.n) })
		if err := f.client.judge.Exact(got); err != nil {
			return err
		}
	}
	return nil
}

// fullCache fills the disk that a host keeps its view on.
func (f *fleet) fullCache(h *fleetHost) {
	f.t.Helper()
	since := len(h.log())
	free := fillDisk(f.t, h.cache())
	hosttest.Must(f.t, f.host("a1").call("PUT", "/v1/agent/service/register", `{"Name":"fresh","Port":81}`, nil))
	hosttest.Eventually(f.t, "an answer for a service that is newer than the disk can hold", func() error {
		addrs, err := h.resolve("fresh.service.consul.")
		if err == nil && len(addrs) != 1 {
			err = fmt.Errorf("%v", addrs)
		}
		return err
	})
	// Of a catalog that has grown large a host knows the contents, and has to keep them, once it was asked.
	hosttest.Eventually(f.t, "the host says that its view can't be kept", func() error { return h.says("last known view cannot be written", since) })
	free()
	took := hosttest.Eventually(f.t, "the view is on disk again", func() error { return h.says("last known view is on disk again", since) })
	f.t.Logf("disk full under the view: it is on disk again %v after there is space", took.Round(time.Millisecond))
}
