package fleet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
)

// quickLeave has a host that leaves not wait for those who may still ask it.
const quickLeave = "performance { leave_drain_time = \"100ms\" }\n"

// TestFleet_AnswersWhileMembersComeAndGo clones a host, joins one that was alone, and has hosts and servers come and go.
func TestFleet_AnswersWhileMembersComeAndGo(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		for _, h := range f.servers() {
			h.extra = quickVotes
		}
		f.start()
		w := &recorder{from: f.host("a1")}
		f.externalNode(w, "printer")
		f.cloneElsewhere()
		f.cloneHere()
		f.aloneThenJoined()
		f.serverComesAndGoes(w)
		f.forcedToLeave()
		hosttest.Eventually(t, "every acknowledged write on every server", func() error { return f.holds(w.wrote) })
		f.client.settled()
		f.client.check()
	})
}

// standing is what a host tells of itself and of the members.
type standing struct {
	Node, History string
	Members       []struct{ Name, ID, Addr, State, Conflict string }
}

func (h *fleetHost) standing() (s standing, err error) {
	err = h.get("/v1/meibo/members", &s)
	return s, err
}

// state is what the host says of a member; "" if it knows none of that name.
func (h *fleetHost) state(name string) string {
	s, err := h.standing()
	if err != nil {
		return err.Error()
	}
	for _, m := range s.Members {
		if m.Name == name {
			return m.State
		}
	}
	return ""
}

// copyOf gives a host that is down the disk of another.
func (h *fleetHost) copyOf(o *fleetHost) {
	h.fleet.t.Helper()
	for _, dir := range []string{"data", "cache"} {
		out, err := exec.Command("cp", "-a", filepath.Join(o.dir, dir), h.dir).CombinedOutput()
		if err != nil {
			h.fleet.t.Fatalf("%v: %s", err, out)
		}
	}
}

// renamed has a configuration say another node_name.
func renamed(from, to string) func(string) string {
	return func(config string) string {
		return strings.Replace(config, fmt.Sprintf("node_name  = %q", from), fmt.Sprintf("node_name  = %q", to), 1)
	}
}

// joinNobody takes from a configuration whom to join.
func joinNobody(config string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(config, "\n"), func(l string) bool { return strings.HasPrefix(l, "retry_join") })
	return strings.Join(lines, "")
}

// cloneElsewhere starts a copy of a host in a cluster of its own, with another key.
func (f *fleet) cloneElsewhere() {
	f.t.Helper()
	clone := f.outsider("elsewhere", func(config string) string {
		return renamed("elsewhere", "a3")(joinNobody(config)) + "server = true\nbootstrap_expect = 1\n"
	})
	clone.key = otherKey
	hosttest.Eventually(f.t, "a view on disk", func() error { _, err := os.Stat(f.host("a3").viewFile()); return err })
	clone.copyOf(f.host("a3"))
	hosttest.Must(f.t, os.Remove(filepath.Join(clone.data(), "serf", "local.keyring"))) // which wins over the configuration
	clone.up()
	defer clone.kill()
	took := hosttest.Eventually(f.t, "the clone knows its own cluster", func() error {
		var leader string
		if err := clone.get("/v1/status/leader", &leader); err != nil || leader == "" {
			return fmt.Errorf("no leader: %w", err)
		}
		_, err := clone.resolve("printer.service.consul.")
		if err == nil || !strings.HasPrefix(err.Error(), "NXDOMAIN") {
			return fmt.Errorf("printer: %v, want NXDOMAIN", err)
		}
		addrs, err := clone.resolve("web.service.consul.") // which the copy offers itself
		if err != nil || len(addrs) != 1 || addrs[0] != netswitch.HostAddr(clone.n) {
			return fmt.Errorf("web: %v %w, want the clone's own", addrs, err)
		}
		return nil
	})
	hosttest.Must(f.t, clone.says("last known view does not count, set aside", 0))
	hosttest.Must(f.t, clone.says("no key of this host's gossip keyring fits", 0))
	if s, err := clone.standing(); err != nil || len(s.Members) != 1 {
		f.t.Errorf("the clone in another cluster knows %+v %v, want itself alone", s.Members, err)
	}
	f.client.settled()
	f.t.Logf("a clone in another cluster: its view set aside, its own cluster known after %v", took.Round(time.Millisecond))
}

// cloneHere starts a copy of a host that runs, in the same cluster.
func (f *fleet) cloneHere() {
	f.t.Helper()
	first := f.host("a3")
	clone := f.outsider("clone", renamed("clone", "a3"))
	clone.copyOf(first)
	since := len(first.log())
	clone.up()
	defer clone.kill()
	took := hosttest.Eventually(f.t, "both are told", func() error {
		return errors.Join(first.says("one is a clone of the other", since), clone.says("one is a clone of the other", 0))
	})
	hosttest.Eventually(f.t, "the members tell of the conflict", func() error {
		s, err := first.standing()
		for _, m := range s.Members {
			if m.Name == "a3" && m.Conflict != "" && m.Addr == first.addr() {
				return nil
			}
		}
		return fmt.Errorf("%+v %w", s.Members, err)
	})
	f.client.soak(2 * time.Second)
	f.client.settled() // web has the first one's address, and not the clone's
	f.t.Logf("a clone in the same cluster: both told after %v, the first one undisturbed", took.Round(time.Millisecond))
}

// aloneThenJoined has a host that kept a catalog for itself join by command, start anew, and leave.
func (f *fleet) aloneThenJoined() {
	f.t.Helper()
	alone := f.outsider("alone", joinNobody)
	alone.extra = quickLeave
	alone.up()
	hosttest.Eventually(f.t, "a host alone keeps a catalog", func() error {
		return alone.call("PUT", "/v1/catalog/register", `{"Node":"ghost","Address":"192.0.2.66","Service":{"Service":"ghost","Port":1}}`, nil)
	})
	hosttest.Must(f.t, alone.call("PUT", "/v1/agent/service/register", `{"Name":"solo","Port":99}`, nil))
	hosttest.Eventually(f.t, "it answers from it", func() error {
		_, err := alone.resolve("ghost.service.consul.")
		_, err2 := alone.resolve("solo.service.consul.")
		return errors.Join(err, err2)
	})
	hosttest.Must(f.t, alone.call("PUT", "/v1/agent/join/"+f.host("s1").addr(), "", nil))
	f.hosts = append(f.hosts, alone)
	took := f.joinedHost()
	alone.down()
	alone.up()
	again := f.joinedHost()
	if h, err := alone.standing(); err != nil || h.History != f.host("s1").history() {
		f.t.Errorf("history of the host that joined: %q %v, want the cluster's", h.History, err)
	}

	f.client.ended(alone)
	alone.operate("leave")
	if code := alone.proc.Exit(f.t); code != 0 {
		f.t.Errorf("after leave exit code %d", code)
	}
	alone.proc = nil
	f.hosts = f.hosts[:len(f.hosts)-1]
	gone := hosttest.Eventually(f.t, "what left is in no answer", func() error { return f.unknown("solo") })
	if state := f.host("s1").state("alone"); state != "left" && state != "" {
		f.t.Errorf("after leave it is %q", state)
	}
	f.t.Logf("a host that was alone joins: one of the cluster after %v, %v after a restart; it leaves: out everywhere after %v",
		took.Round(time.Millisecond), again.Round(time.Millisecond), gone.Round(time.Millisecond))
}

// joinedHost waits until the host that was alone is one of all, with what it offers and without what it had made up.
func (f *fleet) joinedHost() time.Duration {
	f.t.Helper()
	return hosttest.Eventually(f.t, "the host that was alone is one of the cluster", func() error {
		for _, h := range f.hosts {
			if err := h.seesAll(); err != nil {
				return err
			}
		}
		return errors.Join(f.unknown("ghost"), f.registered("solo"), f.registered("printer"), f.client.exactOn(f.hosts[len(f.hosts)-1]))
	})
}

// serverComesAndGoes adds a fourth server, removes it by command, takes it back, and has it leave.
func (f *fleet) serverComesAndGoes(w *recorder) {
	f.t.Helper()
	fourth := f.outsider("fourth", func(config string) string { return config + "server = true\n" + quickVotes + quickLeave })
	begin := time.Now()
	fourth.up()
	hosttest.Eventually(f.t, "four servers vote", func() error { return errors.Join(w.write(), f.voters(4)) })
	added := time.Since(begin)
	id := f.raftID(fourth)
	fourth.kill()
	f.host("a2").operate("operator", "raft", "remove-peer", "-id", id)
	hosttest.Must(f.t, f.voters(3))
	w.must(1)
	begin = time.Now()
	fourth.up()
	hosttest.Eventually(f.t, "a server that was removed and runs is taken back", func() error { return errors.Join(w.write(), f.voters(4)) })
	back := time.Since(begin)
	if hosttest.Verifying() {
		fourth.kill()
		f.t.Logf("a dead server is taken out %v after its death", hosttest.Eventually(f.t, "autopilot takes a dead server out", func() error { return f.voters(3) }))
		fourth.up()
		hosttest.Eventually(f.t, "it is back", func() error { return f.voters(4) })
	}
	f.client.ended(fourth)
	fourth.operate("leave")
	if code := fourth.proc.Exit(f.t); code != 0 {
		f.t.Errorf("after leave exit code %d", code)
	}
	hosttest.Eventually(f.t, "a server that leaves gives up its vote", func() error { return f.voters(3) })
	w.must(1)
	f.t.Logf("a fourth server votes after %v; removed, and started again, after %v", added.Round(time.Millisecond), back.Round(time.Millisecond))
}

// forcedToLeave declares a dead host to have left.
func (f *fleet) forcedToLeave() {
	f.t.Helper()
	dead, s1 := f.host("a3"), f.host("s1")
	dead.kill()
	hosttest.Eventually(f.t, "its death is known", func() error {
		if state := s1.state("a3"); state != "failed" {
			return fmt.Errorf("a3 is %q", state)
		}
		return nil
	})
	f.host("a1").operate("force-leave", "a3")
	took := hosttest.Eventually(f.t, "it has left for all, and is out of the catalog", func() error {
		for _, h := range f.hosts {
			if h != dead && h.state("a3") != "left" {
				return fmt.Errorf("a3 is %q for %s", h.state("a3"), h.name)
			}
		}
		var nodes []struct{ Node string }
		if err := s1.get("/v1/catalog/nodes", &nodes); err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Node == "a3" {
				return errors.New("a3 is in the catalog")
			}
		}
		return nil
	})
	f.host("a1").operate("force-leave", "-prune", "a3")
	hosttest.Eventually(f.t, "it is no member at all", func() error {
		for _, h := range f.hosts {
			if h != dead && h.state("a3") != "" {
				return fmt.Errorf("a3 is %q for %s", h.state("a3"), h.name)
			}
		}
		return nil
	})
	dead.up()
	back := f.whole()
	f.client.settled()
	f.t.Logf("force-leave: out of all lists and the catalog after %v; started again it is back after %v", took.Round(time.Millisecond), back.Round(time.Millisecond))
}
