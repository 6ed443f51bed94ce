package cluster

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/gossip"
	"meibo/cluster/membership"
	"meibo/cluster/view"
)

// What was known of a host's death stays known: over the end of the network, in
// the last write of the view's file, and while there is no network at all. Here
// data_dir is new at each start.
func TestLives_OutlastNetworkAndDataDir(t *testing.T) {
	bind := triplets(t)[0].Gossip.Bind
	dead, path := catalog.NewUUID(), filepath.Join(t.TempDir(), "view")
	cfg := Config{
		NodeID: catalog.NewUUID(), Address: bind.Addr().String(), Server: true, Bootstrap: true, InTheClear: true,
		ViewPath: path, Gossip: gossip.Config{Bind: bind},
	}
	start := func() *running {
		cfg.DataDir = t.TempDir()
		r := run(t, cfg)
		<-r.Ready()
		return r
	}
	knows := func(n *Node, when string) {
		t.Helper()
		if got := (liveness{n}).Life(dead); got != catalog.Failed {
			t.Errorf("%s: life %v, want failed", when, got)
		}
	}

	host := start()
	if _, err := host.awaitNetwork(context.Background()); err != nil {
		t.Fatal(err)
	}
	host.apply(&catalog.Register{Node: catalog.Node{ID: dead, Node: "dead", Address: "192.0.2.7"}})
	host.untilView("the dead host", func(s *view.State) bool { _, _, known := s.Node("dead"); return known == catalog.Present })
	host.restoreLives([]view.LifeOf{{NodeID: dead, Name: "dead", Life: catalog.Failed, Since: time.Now()}})
	knows(host.Node, "told by a neighbour")
	host.end()
	knows(host.Node, "after the network has ended")

	taken, err := net.Listen("tcp", bind.String())
	if err != nil {
		t.Fatal(err)
	}
	host = start()
	knows(host.Node, "with the port of gossip taken")
	for host.NetworkError() == nil {
		time.Sleep(time.Millisecond)
	}
	host.end()
	taken.Close()

	host = start()
	knows(host.Node, "after a life without network")
	if _, err := host.awaitNetwork(context.Background()); err != nil {
		t.Fatal(err)
	}
	knows(host.Node, "with a network again")
}

// Each status of a member has a life of its own in the view.
func TestLives_AreTheMembersStatus(t *testing.T) {
	seen := make(map[catalog.Life]membership.Status)
	for s := membership.NeverSeen; s <= membership.Left; s++ {
		if other, twice := seen[lifeOf[s]]; twice {
			t.Errorf("%v and %v are the same in the view", s, other)
		}
		seen[lifeOf[s]] = s
	}
	if seen[catalog.NeverSeen] != membership.NeverSeen || seen[catalog.Failed] != membership.Failed || seen[catalog.Left] != membership.Left {
		t.Errorf("got %v", seen)
	}
}
