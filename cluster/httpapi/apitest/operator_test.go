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
	if conf.CreateIndex == 0 || conf.ModifyIndex < conf.CreateIndex {
		t.Errorf("configuration at %d, %d", conf.CreateIndex, conf.ModifyIndex)
	}
	changed := *conf
	changed.MinQuorum = 3
	must(t, c.Operator().AutopilotSetConfiguration(&changed, nil))
	defer func() { must(t, c.Operator().AutopilotSetConfiguration(conf, nil)) }()
	if done, err := c.Operator().AutopilotCASConfiguration(conf, nil); err != nil || done {
		t.Errorf("over an older configuration: %v, %v", done, err)
	}
	set, err := c.Operator().AutopilotGetConfiguration(nil)
	must(t, err)
	if set.MinQuorum != 3 || set.ModifyIndex <= conf.ModifyIndex || set.CreateIndex != conf.CreateIndex {
		t.Errorf("after a set: %+v", set)
	}
	if done, err := c.Operator().AutopilotCASConfiguration(set, nil); err != nil || !done {
		t.Errorf("over the present configuration: %v, %v", done, err)
	}
	if _, ok := state.Servers[nodeID(t, c)]; !ok {
		t.Errorf("the node's ID is none of %v", state.Servers)
	}
	wantCode(t, c.Operator().RaftRemovePeerByAddress("192.0.2.1:1", nil), 500, `address "192.0.2.1:1" was not found`)
	if _, err := c.Operator().RaftLeaderTransfer("nobody", nil); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("transfer to nobody: %v", err)
	}
	usage, meta, err := c.Operator().Usage(nil)
	must(t, err)
	if u := usage.Usage["dc1"]; u.Nodes < 1 || u.Services < 1 || u.ServiceInstances < 1 || len(u.ConnectServiceInstances) != 6 || meta.LastIndex == 0 {
		t.Errorf("usage %+v", usage)
	}
	wantCode(t, c.Operator().RaftRemovePeerByID("nobody", nil), 500, `id "nobody" was not found in the Raft configuration`)
}

func nodeID(t *testing.T, c *api.Client) string {
	t.Helper()
	self, err := c.Agent().Self()
	must(t, err)
	id, _ := self["Config"]["NodeID"].(string)
	return id
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
	for what, change := range map[string]func(string, *api.WriteOptions) error{
		"install": c.Operator().KeyringInstall, "use": c.Operator().KeyringUse, "remove": c.Operator().KeyringRemove,
	} {
		wantCode(t, change("no base64!", nil), 500, "base64")
		if err := change("pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=", nil); err != nil && !strings.Contains(err.Error(), "encryption not enabled") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
