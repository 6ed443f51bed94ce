package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const key = `encrypt = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="` + "\n"

func TestEncryption_IsAKeyOrAWordBeforeOthersAreMet(t *testing.T) {
	const server = "server = true\nbootstrap_expect = 3\n"
	tests := []struct{ name, hcl, key string }{ // key: that the fault names, "" for none
		{"a single host", ``, ""},
		{"a server of its own", `server = true bootstrap = true`, ""},
		{"one server", `server = true bootstrap_expect = 1`, ""},
		{"joins another host", `retry_join = ["10.0.0.1"]`, "retry_join"},
		{"joins a name", `retry_join = ["servers.example:8301"]`, "retry_join"},
		{"joins by the old key", `start_join = ["10.0.0.1"]`, "retry_join"},
		{"joins one host here and one there", `retry_join = ["127.0.0.2", "10.0.0.1"]`, "retry_join"},
		{"waits for servers", server, "bootstrap_expect"},
		{"with a key", server + key + `retry_join = ["10.0.0.1"]`, ""},
		{"in the clear, in words", server + `retry_join = ["10.0.0.1"] encrypt = "none"`, ""},
		{"loopback", server + `bind_addr = "127.0.0.1" retry_join = ["127.0.0.2", "127.0.0.3:8301", "[::1]:8301", "::1", "localhost", "::ffff:127.0.0.9"]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, "data_dir = \"/nowhere\"\n"+tt.hcl)
			switch {
			case tt.key == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.key == "":
			case err == nil:
				t.Error("taken")
			default:
				for _, want := range []string{`key "` + tt.key + `"`, "meibo keygen", `encrypt = "none"`} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v\nwant %s", err, want)
					}
				}
			}
		})
	}
}

func TestEncryption_AKeptKeyringIsAKey(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "serf"), 0o700); err != nil {
		t.Fatal(err)
	}
	hcl := "data_dir = \"" + dir + "\"\nretry_join = [\"10.0.0.1\"]"
	if _, _, err := load(t, hcl); err == nil {
		t.Error("taken without any key")
	}
	if err := os.WriteFile(filepath.Join(dir, "serf", "local.keyring"), []byte(`["pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := load(t, hcl)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "serf", "local.keyring"); c.KeyringPath() != want {
		t.Errorf("keyring %s, want %s", c.KeyringPath(), want)
	}
	if _, _, err := load(t, hcl+"\ndisable_keyring_file = true"); err == nil {
		t.Error("a file that is not read counts")
	}
}

func TestCheckJoin_KeepsAHostWithoutAKeyToItsMachine(t *testing.T) {
	c := mustLoad(t, ``)
	if err := c.CheckJoin([]string{"127.0.0.2:8301"}); err != nil {
		t.Error(err)
	}
	if err := c.CheckJoin([]string{"127.0.0.2", "10.0.0.1"}); err == nil || !strings.Contains(err.Error(), "10.0.0.1") || !strings.Contains(err.Error(), "keygen") {
		t.Errorf("got %v", err)
	}
	if err := mustLoad(t, key).CheckJoin([]string{"10.0.0.1"}); err != nil {
		t.Error(err)
	}
}

func TestJoin_CloudsAreRefusedWithoutShowingTheirSecret(t *testing.T) {
	_, _, err := load(t, key+`retry_join = ["provider=aws tag_key=a secret_access_key=s3cr3t"]`)
	if err == nil || !strings.Contains(err.Error(), "provider=aws") || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("got %v", err)
	}
	if _, _, err := load(t, key+`retry_join = ["http://10.0.0.1/"]`); err == nil {
		t.Error("a URL is taken for an address")
	}
}

func TestClusterParts_AreTakenByTheirRooms(t *testing.T) {
	dir := t.TempDir()
	c := mustLoad(t, key+`
data_dir = "`+dir+`"
cache_dir = "/elsewhere"
bind_addr = "127.0.0.3"
node_id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
retry_join = ["127.0.0.2"]
start_join = ["127.0.0.4"]
retry_interval = "7s" retry_max = 3 rejoin_after_leave = true reconnect_timeout = "9h"
serf_lan_allowed_cidrs = ["127.0.0.0/8"]
gossip_lan { gossip_nodes = 5 gossip_interval = "50ms" probe_interval = "600ms" probe_timeout = "70ms" suspicion_mult = 3 retransmit_mult = 2 hold_down = "6s" hold_down_max = "1m" }
ports { server = 9300 serf_lan = 9301 }
view { keep = "2h" }`)
	g := c.GossipConfig()
	got := fmt.Sprintln(g.Name, g.ID, g.Datacenter, g.Bind, g.Advertise, g.Dir == filepath.Join(dir, "serf"), g.RetryJoin, g.RetryInterval, g.RetryMax, g.RejoinAfterLeave, g.ReconnectTimeout, g.Allowed, g.Tuning)
	if want := "host1 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0 dc1 127.0.0.3:9301 127.0.0.3:9301 true [127.0.0.2 127.0.0.4] 7s 3 true 9h0m0s [127.0.0.0/8] {5 50ms 600ms 70ms 3 2 6s 1m0s}"; strings.TrimSpace(got) != want {
		t.Errorf("gossip\ngot  %s\nwant %s", got, want)
	}
	if l := c.LinkConfig(); l.Listen.String() != "127.0.0.3:9300" || l.Self.Name != "host1" || l.Self.Datacenter != "dc1" {
		t.Errorf("link %+v", l)
	}
	if c.ViewPath() != "/elsewhere/catalog.view" || c.View.Keep != 2*time.Hour {
		t.Errorf("view file %s, kept %v", c.ViewPath(), c.View.Keep)
	}
	if a := c.AutopilotConfig(); !a.CleanupDeadServers || a.LastContactThreshold != 200*time.Millisecond || a.MaxTrailingLogs != 250 || a.ServerStabilizationTime != 10*time.Second {
		t.Errorf("autopilot %+v", a)
	}
	if a := mustLoad(t, `autopilot { server_stabilization_time = "0s" }`).AutopilotConfig(); a.ServerStabilizationTime >= 0 {
		t.Errorf("no time is taken for the default: %v", a.ServerStabilizationTime)
	}
	if v := mustLoad(t, `view { whole_below = 0 }`).View; v.WholeBelow >= 0 {
		t.Errorf("no size is taken for the default: %d", v.WholeBelow)
	}
	if k := c.Key(); len(k) != 32 {
		t.Errorf("a key of %d bytes", len(k))
	}
}

func TestClusterParts_WithoutAKeyStayOnLoopback(t *testing.T) {
	for hcl, want := range map[string]string{
		``:                        "127.0.0.1:8301 127.0.0.1:8301 127.0.0.1:8300",
		`bind_addr = "10.0.0.7"`:  "127.0.0.1:8301 127.0.0.1:8301 127.0.0.1:8300",
		`bind_addr = "fd00::7"`:   "[::1]:8301 [::1]:8301 [::1]:8300",
		`bind_addr = "127.0.0.9"`: "127.0.0.9:8301 127.0.0.9:8301 127.0.0.9:8300",
		`encrypt = "none"`:        "0.0.0.0:8301 10.0.0.7:8301 0.0.0.0:8300",
		key:                       "0.0.0.0:8301 10.0.0.7:8301 0.0.0.0:8300",
		key + `serf_lan = "10.0.0.8" ports { server = -1 }`: "10.0.0.8:8301 10.0.0.7:8301 invalid AddrPort",
		`ports { serf_lan = -1 }`:                           "invalid AddrPort invalid AddrPort 127.0.0.1:8300",
	} {
		c := mustLoad(t, hcl)
		g := c.GossipConfig()
		if got := fmt.Sprintf("%v %v %v", g.Bind, g.Advertise, c.LinkConfig().Listen); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", hcl, got, want)
		}
	}
}
