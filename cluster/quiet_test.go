package cluster

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/logtest"
	"meibo/cluster/consensus"
	"meibo/cluster/retry"
)

// keepLog has the host's log kept.
func keepLog(t *testing.T, cfg *Config) *logtest.Text {
	s := new(logtest.Text)
	cfg.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), s), nil)).With("host", cfg.NodeName)
	return s
}

// awaitVote waits until a leader has called on the server, and it votes.
func awaitVote(t *testing.T, n *running) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	votes := func() bool {
		s, _, _ := n.running()
		return s != nil && s.IsReady() && slices.ContainsFunc(s.Replica().Servers(), func(one consensus.Server) bool { return one.ID == s.ID() && one.Voter })
	}
	for !votes() {
		if time.Now().After(deadline) {
			t.Fatalf("%s never got a vote", n.cfg.NodeName)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A key that is removed cuts connections, and nobody is out of reach for that: not
// for the leader, nor for who leads next.
func TestKeyring_RemovalLeavesNoDeadConnections(t *testing.T) {
	cfgs := triplets(t)
	logs := make([]*logtest.Text, 3)
	nodes := make([]*running, 3)
	old, next := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for i := range cfgs {
		cfgs[i].InTheClear, cfgs[i].Key = false, old
		logs[i] = keepLog(t, &cfgs[i])
		nodes[i] = run(t, cfgs[i])
	}
	awaitServers(t, nodes, 3)
	// Each leads once, so that each has connections to all. Who leads may change by itself
	// meanwhile: the machine has other things to do.
	lead := func(i int) {
		t.Helper()
		id := nodes[i].cfg.NodeID
		for deadline := time.Now().Add(30 * time.Second); !nodes[i].Leadership().Leading; retry.Wait(t.Context(), 50*time.Millisecond) {
			for _, n := range nodes {
				if n.Leadership().Leading && n != nodes[i] {
					if err := n.TransferLeader(n.context(), id); err != nil {
						t.Log(err)
					}
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("server %d never led", i)
			}
		}
		awaitServers(t, nodes, 3)
	}
	for i := range nodes {
		awaitVote(t, nodes[i])
		lead(i)
	}
	for _, log := range logs {
		log.Take()
	}
	for _, step := range []struct {
		op  KeyringOp
		key []byte
	}{{KeyringInstall, next}, {KeyringUse, next}, {KeyringRemove, old}} {
		answers, err := nodes[0].Keyring(nodes[0].context(), step.op, base64.StdEncoding.EncodeToString(step.key), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range answers {
			if a.Err != "" || a.Down {
				t.Errorf("%s: %+v", step.op, a)
			}
		}
	}
	for i := range nodes {
		lead(i)
	}
	for i, log := range logs {
		if text := log.String(); outOfReach.MatchString(text) {
			t.Errorf("%s warns:\n%s", cfgs[i].NodeName, text)
		}
	}
}

// outOfReach is what is said of who can't be spoken to: of a dead connection.
var outOfReach = regexp.MustCompile(`level=(WARN|ERROR) msg="(raft server is out of reach|cannot speak)`)

// Whether the catalog has a node is for the leader to say: what was just registered,
// or removed, by another host counts, whatever the own view shows by now.
func TestCatalogHasNode_IsTheLeadersWord(t *testing.T) {
	cfgs := triplets(t)
	nodes := make([]*running, 3)
	for i := range cfgs {
		nodes[i] = run(t, cfgs[i])
	}
	awaitServers(t, nodes, 3)
	for _, n := range nodes {
		awaitVote(t, n)
	}
	for i := range 20 {
		name := fmt.Sprintf("Ext-%d", i)
		nodes[i%3].apply(&catalog.Register{Node: catalog.Node{Node: name, Address: "192.0.2.1"}})
		for _, n := range nodes {
			if !n.CatalogHasNode(t.Context(), name) {
				t.Errorf("%s does not know %s, which is registered", n.cfg.NodeName, name)
			}
		}
		nodes[i%3].apply(&catalog.Forget{Node: name})
		for _, n := range nodes {
			if n.CatalogHasNode(t.Context(), name) {
				t.Errorf("%s knows %s, which is forgotten", n.cfg.NodeName, name)
			}
		}
	}
}
