package gossip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/membership"
)

// host is a Gossip that runs in a test.
type host struct {
	*Gossip
	t    *testing.T
	stop func()
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 8301)
}

func id(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// start runs host i; edit may change its configuration.
func (n *network) start(t *testing.T, i int, edit func(*Config)) *host {
	t.Helper()
	cfg := Config{ID: id(i), Name: fmt.Sprintf("h%d", i), Datacenter: "dc1", Bind: address(i)}
	cfg.Logger = testLogger(t, cfg.Name)
	if i != 1 {
		cfg.RetryJoin = []string{address(1).String()}
	}
	if edit != nil {
		edit(&cfg)
	}
	if cfg.Network == nil {
		cfg.Network = n.Host(cfg.Bind.Addr())
	}
	return run(t, cfg)
}

func run(t *testing.T, cfg Config) *host {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	h := &host{Gossip: g, t: t}
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: Run: %v", cfg.Name, err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

func (n *network) cluster(t *testing.T, count int) []*host {
	t.Helper()
	hosts := make([]*host, count)
	for i := range hosts {
		hosts[i] = n.start(t, i+1, nil)
	}
	within(t, 10*time.Second, "all see all", func() bool { return whole(hosts...) })
	return hosts
}

// within waits in fake or real time for a condition.
func within(t *testing.T, most time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			t.Fatalf("not within %v: %s", most, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// member is what is known of a name; nothing of one that isn't there.
func (h *host) member(name string) membership.Member {
	if m := h.Members().ByName(name); m != nil {
		return *m
	}
	return membership.Member{}
}

func (h *host) sees(name string) membership.Status { return h.member(name).Status }

func (h *host) guarded() bool { return h.Members().Guarded() }

// all reports whether all these say s of a host.
func all(hosts []*host, name string, s membership.Status) bool {
	return !slices.ContainsFunc(hosts, func(h *host) bool { return h.sees(name) != s })
}

func whole(hosts ...*host) bool {
	for _, h := range hosts {
		for _, other := range hosts {
			if m := h.member(other.self.Name); m.Status != membership.Alive || m.Told != membership.Alive {
				return false
			}
		}
	}
	return true
}

func TestCluster_MembersMeetAndTellTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		if err := hosts[3].SetTags(map[string]string{"role": "consul"}); err != nil {
			t.Fatal(err)
		}
		took := within(t, 3*time.Second, "the tag is told", func() bool {
			return !slices.ContainsFunc(hosts, func(h *host) bool { m := h.member("h4"); return m.Tags["role"] != "consul" })
		})
		t.Logf("a tag was everywhere after %v", took)
		members := hosts[0].Members().Members()
		if len(members) != 5 || members[0].Name != "h1" || members[0].ID != id(1) || members[4].Datacenter != "dc1" {
			t.Errorf("got members %+v", members)
		}
		if err := hosts[0].SetTags(map[string]string{"x": strings.Repeat("y", 500)}); err == nil {
			t.Error("tags that don't fit were taken")
		}
		select {
		case <-hosts[0].Joined():
		default:
			t.Error("not joined")
		}
		if rtt, err := hosts[0].Ping(t.Context(), "h3"); err != nil || rtt > time.Second {
			t.Errorf("ping: %v %v", rtt, err)
		}
	})
}
