package apitest

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestOperator_ServersAsTheClientReadsThem(t *testing.T) {
	c := connect(t)
	var leader string
	eventually(t, "a leader", func() (err error) {
		raft, err := c.Operator().RaftGetConfiguration(nil)
		if err != nil {
			return err
		}
		for _, s := range raft.Servers {
			if s.Leader && s.Voter && s.Address != "" && s.Node != "" {
				leader = s.ID
			}
		}
		return nil
	})
	if leader == "" {
		t.Fatal("no server of the configuration leads")
	}
	health, err := c.Operator().AutopilotServerHealth(nil)
	must(t, err)
	if !health.Healthy || len(health.Servers) == 0 || health.Servers[0].SerfStatus != "alive" || health.Servers[0].StableSince.IsZero() {
		t.Errorf("health %+v", health)
	}
	state, err := c.Operator().AutopilotState(nil)
	must(t, err)
	if s := state.Servers[leader]; state.Leader != leader || s.Status != api.AutopilotServerLeader || !s.Healthy {
		t.Errorf("state %+v", state)
	}
	conf, err := c.Operator().AutopilotGetConfiguration(nil)
	must(t, err)
	if !conf.CleanupDeadServers || conf.LastContactThreshold.Duration().Milliseconds() != 200 || conf.MaxTrailingLogs != 250 {
		t.Errorf("configuration %+v", conf)
	}
	wantCode(t, c.Operator().AutopilotSetConfiguration(conf, nil), 501, "files")
	wantCode(t, c.Operator().RaftRemovePeerByID("nobody", nil), 500, `id "nobody" was not found in the Raft configuration`)
}

func TestAgent_MembersAndWhatChangesThem(t *testing.T) {
	c := connect(t)
	members, err := c.Agent().Members(false)
	must(t, err)
	if len(members) == 0 || members[0].Status != 1 || members[0].Tags["role"] == "" || members[0].Tags["dc"] == "" {
		t.Errorf("members %+v", members)
	}
	wantCode(t, c.Agent().ForceLeave("nobody"), 500, "No node found with name 'nobody'")
	if err := c.Agent().Join("127.0.0.1:1", false); err == nil {
		t.Error("joined nobody")
	}
	wantCode(t, c.Agent().Join("127.0.0.1:1", true), 501, "one datacenter")
	if _, err := c.Operator().KeyringList(nil); err != nil && !strings.Contains(err.Error(), "encryption not enabled") {
		t.Errorf("keyring: %v", err)
	}
}
