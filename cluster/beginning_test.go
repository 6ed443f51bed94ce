package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/gossip"
	"meibo/cluster/leader"
	"meibo/cluster/retry"
)

// triplets are the configurations of three servers on loopback addresses of their
// own.
func triplets(t *testing.T) []Config {
	net := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256))
	var join []string
	for i := range 3 {
		join = append(join, fmt.Sprintf("%s%d:8301", net, i+1))
	}
	var cfgs []Config
	for i := range 3 {
		bind := netip.MustParseAddrPort(join[i])
		cfgs = append(cfgs, Config{
			NodeName: fmt.Sprintf("s%d", i+1), Address: bind.Addr().String(), DataDir: t.TempDir(), Server: true, BootstrapExpect: 3,
			InTheClear: true,
			Autopilot:  leader.Autopilot{CleanupDeadServers: true, ServerStabilizationTime: time.Second},
			Gossip: gossip.Config{Bind: bind, RetryJoin: join, RetryInterval: time.Second, Tuning: gossip.Tuning{
				Nodes: 4, Interval: 50 * time.Millisecond, ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond}},
		})
	}
	return cfgs
}

// awaitServers waits until a leader says that n servers vote and are well, and
// returns the ID of the history and the servers' own.
func awaitServers(t *testing.T, nodes []*running, n int) (history string, servers []string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for _, one := range nodes {
			h, err := one.AutopilotHealth()
			voters := slices.DeleteFunc(slices.Clone(h.Servers), func(s leader.ServerState) bool { return !s.Voter || !s.Healthy })
			if err != nil || len(voters) != n || len(h.Servers) != n {
				continue
			}
			r, _, err := one.Read(t.Context(), catalog.Default)
			if err != nil {
				continue
			}
			_, hist := r.History(nil)
			for _, s := range voters {
				servers = append(servers, s.ID)
			}
			return hist.ID, servers
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, one := range nodes {
		h, err := one.AutopilotHealth()
		t.Logf("%s: %+v, %v", one.cfg.NodeName, h, err)
		for _, m := range one.Members() {
			t.Logf("%s sees %+v", one.cfg.NodeName, m)
		}
	}
	t.Fatalf("there never were %d healthy voters", n)
	return "", nil
}

// With bootstrap_expect three servers become one cluster; one that loses all its
// files becomes another server of it; and when all lose theirs they begin anew.
func TestRule29_ServersBeginTogetherAndAWipedOneJoinsThem(t *testing.T) {
	cfgs := triplets(t)
	start := func(i int) *running { return run(t, cfgs[i]) }
	wipe := func(i int) {
		if err := os.RemoveAll(cfgs[i].DataDir); err != nil {
			t.Fatal(err)
		}
	}
	nodes := []*running{start(0), start(1), start(2)}
	first, ids := awaitServers(t, nodes, 3)

	nodes[0].end()
	wipe(0)
	nodes[0] = start(0)
	again, now := awaitServers(t, nodes, 3)
	for !slices.Contains(now, nodes[0].cfg.NodeID) { // the former one may still be well
		again, now = awaitServers(t, nodes, 3)
		retry.Wait(context.Background(), 50*time.Millisecond)
	}
	if again != first || strings.Join(ids, " ") == strings.Join(now, " ") {
		t.Errorf("after one was wiped: history %s, servers %v; before: %s, %v", again, now, first, ids)
	}

	for i, n := range nodes {
		n.end()
		wipe(i)
	}
	for i := range nodes {
		nodes[i] = start(i)
	}
	if anew, _ := awaitServers(t, nodes, 3); anew == first || anew == "" {
		t.Errorf("after all were wiped: history %q, want another than before", anew)
	}
}
