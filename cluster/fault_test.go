package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/gossip"
	"meibo/cluster/view"
)

func TestFault_ConsensusKilledWhileTheViewAnswers(t *testing.T) {
	n := run(t, Config{Agent: withService(80)})
	index := n.apply(elsewhere(5432))
	ws := make(watch, 16)
	if _, instances := n.read().ServiceInstances(ws, "db"); len(instances) != 1 {
		t.Fatal("no instance to watch")
	}

	// A log entry that no program understands stops the replica.
	s, _, _ := n.running()
	if _, _, err := s.Replica().Apply(n.context(), []byte("garbage")); !errors.Is(err, consensus.ErrUnknownOutcome) {
		t.Fatalf("got %v, want %v", err, consensus.ErrUnknownOutcome)
	}
	st := n.untilStatus(Failed)
	if st.Err == nil || st.Failures != 1 {
		t.Errorf("status %+v", st)
	}
	if own, other := ports(n.View().Load(), "web"), ports(n.View().Load(), "db"); own != "80" || other != "5432" {
		t.Errorf("without consensus: web %q, db %q", own, other)
	}
	if err := n.Agent().AddService(web(81), agent.SourceAPI, false); err != nil {
		t.Fatal(err)
	}
	if got := ports(n.View().Load(), "web"); got != "81" {
		t.Errorf("registered without consensus: view has %q", got)
	}
	if _, err := n.Apply(n.context(), elsewhere(1)); !errors.Is(err, catalog.ErrNoLeader) {
		t.Errorf("write: got %v, want %v", err, catalog.ErrNoLeader)
	}
	if r, _, err := n.Read(n.context(), catalog.Stale); err != nil {
		t.Errorf("stale read: %v", err)
	} else if _, instances := r.ServiceInstances(nil, "db"); len(instances) != 1 {
		t.Errorf("stale read: %d instances", len(instances))
	}
	if !ws.wait(n.context()) {
		t.Error("a watch on the store that is no more never fired")
	}

	// It comes back by itself, empty since it was in memory, and the agent fills it.
	n.untilStatus(Running)
	if again := n.apply(elsewhere(1)); again <= index {
		t.Errorf("index went back from %d to %d", index, again)
	}
	ctx := n.context()
	for {
		ws := make(watch, 16)
		if _, instances := n.read().ServiceInstances(ws, "web"); len(instances) == 1 && instances[0].Service.Port == 81 {
			break
		}
		if !ws.wait(ctx) {
			t.Fatal("the agent's service never came to the new catalog")
		}
	}
}

func TestFault_DataDirCannotBeUsedAndThenCan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file is in the way
		t.Fatal(err)
	}
	n := run(t, Config{DataDir: dir, Agent: withService(80)})
	st := n.untilStatus(Failed)
	if !strings.Contains(st.Err.Error(), dir) {
		t.Errorf("the reason does not name the folder: %v", st.Err)
	}
	if own, other := ports(n.View().Load(), "web"), ports(n.View().Load(), "db"); own != "80" || other != "not yet" {
		t.Errorf("web %q, db %q, want 80 and no denial", own, other)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	n.untilStatus(Running)
	n.apply(elsewhere(1))
	if id, err := loadNodeID(dir); err != nil || id != n.Record().ID {
		t.Errorf("node ID kept: %q %v, want %s", id, err, n.Record().ID)
	}
}

func TestFault_RaftFileCutShortBeginsANewHistory(t *testing.T) {
	dir := t.TempDir()
	n := run(t, Config{DataDir: dir})
	if err := n.Agent().AddService(web(80), agent.SourceAPI, false); err != nil {
		t.Fatal(err)
	}
	index := n.apply(elsewhere(1))
	history := n.View().Load().History().ID
	n.end()
	log := filepath.Join(dir, raftDir, "raft.db")
	if err := os.Truncate(log, 10_000); err != nil {
		t.Fatal(err)
	}

	again := run(t, Config{DataDir: dir})
	again.untilView("a history", func(s *view.State) bool { return s.History().ID != "" })
	if h := again.View().Load().History().ID; h == history {
		t.Error("the history that lost entries goes on")
	}
	if got := ports(again.View().Load(), "web"); got != "80" {
		t.Errorf("own service: %q", got)
	}
	if after := again.apply(elsewhere(2)); after <= index {
		t.Errorf("index went back from %d to %d", index, after)
	}
	aside, err := filepath.Glob(log + ".bad-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v %v", aside, err)
	}
}

func TestFault_DataDirOfAnotherNodeIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	first := run(t, Config{DataDir: dir, Agent: withService(80)})
	first.apply(elsewhere(1))
	second := run(t, Config{NodeName: "second", DataDir: dir})
	if st := second.untilStatus(Failed); !errors.Is(st.Err, consensus.ErrInUse) {
		t.Errorf("second process in one folder: got %v, want %v", st.Err, consensus.ErrInUse)
	}
	other := run(t, Config{NodeName: "other", NodeID: "4b1d3ff3-0000-4000-8000-000000000001", DataDir: dir})
	if st := other.untilStatus(Failed); !strings.Contains(fmt.Sprint(st.Err), first.Record().ID) {
		t.Errorf("another node's folder: got %v, want an error that names its ID", st.Err)
	}
	first.apply(elsewhere(2))
}

func TestNew_RefusesWhatCannotBe(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no name":              {},
		"ID that is no UUID":   {NodeName: "n", NodeID: "n"},
		"negative expectation": {NodeName: "n", BootstrapExpect: -1},
		"bootstrap of several": {NodeName: "n", Bootstrap: true, BootstrapExpect: 3},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCollector_AlwaysGivesWhatItDescribes(t *testing.T) {
	for name, cfg := range map[string]Config{"with a catalog": {}, "without": {Gossip: gossip.Config{RetryJoin: []string{"192.0.2.1"}}}} {
		n := run(t, cfg)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(n.Collector())
		for range 2 {
			families, err := registry.Gather()
			if err != nil || len(families) == 0 {
				t.Errorf("%s: %d families, %v", name, len(families), err)
			}
			if len(cfg.Gossip.RetryJoin) == 0 {
				<-n.Ready()
			} else {
				n.untilStatus(Absent)
			}
		}
	}
}

func TestRead_WaitsForALeaderThatIsComing(t *testing.T) {
	n := mustNew(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, _, err := n.Read(ctx, catalog.Consistent)
		got <- err
	}()
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	if err := <-got; err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}
