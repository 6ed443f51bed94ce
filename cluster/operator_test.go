package cluster

import (
	"errors"
	"testing"

	"meibo/cluster/server"
)

// A server whose node ID was configured may have voted under it before: it has another ID
// in Raft, and operators see and name it by its node's.
func TestOperator_ServersHaveTheirNodesIDs(t *testing.T) {
	const id = "aaaaaaaa-0000-4000-8000-00000000000a"
	r := run(t, Config{NodeID: id, DataDir: t.TempDir(), Server: true, Bootstrap: true, InTheClear: true})
	r.read() // it leads
	s, _, _ := r.running()
	if s.ID() == id {
		t.Fatal("it goes by its node's ID in Raft: nothing is tested")
	}
	servers, _, err := r.RaftConfiguration()
	if err != nil || len(servers) != 1 || servers[0].ID != id || servers[0].RaftID != s.ID() || servers[0].Node != "host" || !servers[0].Leading {
		t.Errorf("got %+v, %v", servers, err)
	}
	health, err := r.AutopilotHealth()
	if err != nil || len(health.Servers) != 1 || health.Servers[0].ID != id {
		t.Errorf("got %+v, %v", health, err)
	}
	// A leader that is alone has nobody to hand over to, by whichever of its IDs it is named.
	for _, own := range []string{id, s.ID()} {
		if err := r.TransferLeader(r.context(), own); errors.Is(err, server.ErrUnknownServer) {
			t.Errorf("%s: %v", own, err)
		}
	}
	for _, err := range []error{r.TransferLeader(r.context(), "nobody"), r.RemovePeer(r.context(), "nobody", ""), r.RemovePeer(r.context(), "", "192.0.2.1:1")} {
		if !errors.Is(err, server.ErrUnknownServer) {
			t.Errorf("got %v, want that there is none", err)
		}
	}
	if conf, err := r.AutopilotConfig(); err != nil || conf == nil {
		t.Errorf("no autopilot configuration: %v", err)
	}
}
