package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoad_WhatConsulTakes loads configurations of a real look that a Consul
// agent accepts, each alone.
func TestLoad_WhatConsulTakes(t *testing.T) {
	// What is refused on purpose, and the words that say what to do.
	refused := map[string]string{
		"25-client-without-encrypt.json": "encrypt",
		"26-client-cloud-join.json":      "exec=PROGRAM",
	}
	// Definitions that Consul refuses with all the rest, or never runs.
	leftOut := map[string]int{"33-services-of-compose.json": 1, "37-services-on-any-address.hcl": 2, "35-service-gateway.json": 1}
	const dir = "testdata/accepted"
	own := host
	own.Template = nil // one names an interface that every host has
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 40 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			c, _, err := Load(Sources{Paths: []string{filepath.Join(dir, e.Name())}, Host: own, Partial: true})
			switch words := refused[e.Name()]; {
			case words == "" && err != nil:
				t.Errorf("refused: %v", err)
			case words == "" && len(c.Agent.LeftOut) != leftOut[e.Name()]:
				t.Errorf("left out: %v", c.Agent.LeftOut)
			case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
				t.Errorf("got %v, want words with %q", err, words)
			}
		})
	}
}

func TestChoices_AnotherSpellingIsOneKeysOwn(t *testing.T) {
	c := mustLoad(t, `
		log_level = "warning"
		log_sublevels { "agent.server.serf" = "err"  cache = "trace" }
		check { name = "c" ttl = "1m" status = "warning" }
		service { name = "s" check { ttl = "1m" status = "Warning" } }`)
	if got := c.Log.Level.String(); got != "WARN" {
		t.Errorf("log_level %s", got)
	}
	if got := c.Log.Sublevels; got["agent.server.serf"].String() != "ERROR" || got["cache"] != LevelTrace {
		t.Errorf("log_sublevels %v", got)
	}
	if a, b := c.Agent.Checks[0].Status, c.Agent.Services[0].Checks[0].Status; a != "warning" || b != "warning" {
		t.Errorf("status %q and %q", a, b)
	}
	for key, hcl := range map[string]string{
		"check.status":    `check { name = "c" ttl = "1m" status = "warn" }`,
		"syslog_facility": `syslog_facility = "ERR"`,
		"log_level":       `log_level = "loud"`,
		"log_sublevels":   `log_sublevels { cache = "loud" }`,
	} {
		if _, _, err := load(t, hcl); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", hcl, err)
		}
	}
}

// Each choice that a message lists is taken, in any letter case.
func TestChoices_WhatIsListedIsTaken(t *testing.T) {
	for name, tab := range tables {
		for _, k := range tab.keys {
			for _, choice := range k.Choices {
				for _, s := range []string{choice, strings.ToUpper(choice), strings.ToLower(choice)} {
					c := conversion{decoder: decoder{&report{}}, key: k}
					if v, ok := c.typed(&tree{shape: shapeString, text: s}); !ok || v != choice {
						t.Errorf("%s.%s: %q is %v, %v", name, k.Path, s, v, ok)
					}
				}
			}
		}
	}
}

func TestRetryJoin_Programs(t *testing.T) {
	c := mustLoad(t, `
		encrypt    = "bmV1dHJhbC1rZXktb2YtMzItYnl0ZXMtZm9yLXRlc3Q="
		retry_join = ["10.0.0.11", "exec=/bin/hosts -tag servers"]`)
	if got := c.Cluster; len(got.RetryJoin) != 1 || len(got.RetryJoinExec) != 1 || strings.Join(got.RetryJoinExec[0], "|") != "/bin/hosts|-tag|servers" {
		t.Errorf("got %q and %q", got.RetryJoin, got.RetryJoinExec)
	}
	if c.BeginsAlone() || strings.Contains(c.Redacted(), "servers") || !strings.Contains(c.Redacted(), "exec=/bin/hosts …") {
		t.Errorf("alone: %v\n%s", c.BeginsAlone(), c.Redacted())
	}
	for hcl, want := range map[string]string{
		`retry_join = ["exec=/bin/hosts"]`:                         "encrypt",
		`encrypt = "none"  retry_join = ["exec="]`:                 "exec=PROGRAM",
		`encrypt = "none"  retry_join = ["exec=/bin/sh -c 'ls'"]`:  "no shell",
		`encrypt = "none"  retry_join = ["provider=aws key=1234"]`: "exec=PROGRAM ARGS",
	} {
		if _, _, err := load(t, `data_dir = "/nowhere" `+hcl); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: got %v", hcl, err)
		}
	}
}

func TestCheckTLS_IsThatOfInternalRPC(t *testing.T) {
	c := mustLoad(t, `
		enable_agent_tls_for_checks = true
		tls { defaults { ca_file = "/ca" cert_file = "/cert" key_file = "/key" } internal_rpc { ca_file = "/own" } }`)
	if got := c.AgentConfig().CheckTLS; got == nil || got.CAFile != "/own" || got.CertFile != "/cert" || got.KeyFile != "/key" {
		t.Errorf("got %+v", got)
	}
	if c := mustLoad(t, `tls { defaults { ca_file = "/ca" } }`); c.AgentConfig().CheckTLS != nil {
		t.Error("not asked for")
	}
}

// A key that has no effect is named once it is set to anything but what is so anyway.
func TestNotice_KeysWithoutEffectAreNamed(t *testing.T) {
	for _, tt := range []struct{ hcl, want string }{
		{`cache { persist = true }`, ""},
		{`cache { persist = false }`, ""},
		{`ports { serf_wan = 8302 }`, ""},
		{`ports { serf_wan = 9302 }`, "ports.serf_wan"},
		{`session_ttl_min = "10s"`, ""},
		{`session_ttl_min = "1s"`, "session_ttl_min"},
		{`limits { kv_max_value_size = 524288 https_handshake_timeout = "5s" rpc_client_timeout = "60s" }`, ""},
		{`limits { kv_max_value_size = 1024 }`, "limits.kv_max_value_size"},
		{`limits { txn_max_req_len = 1024 }`, "limits.txn_max_req_len"},
		{`limits { rpc_client_timeout = "1s" }`, "limits.rpc_client_timeout"},
		{`limits { rpc_rate = 10 }`, "limits.rpc_rate"},
		{`limits { request_limits { mode = "enforcing" } }`, "limits.request_limits.mode"},
		{`dns_config { allow_stale = true max_stale = "87600h" }`, ""},
		{`dns_config { allow_stale = false }`, "dns_config.allow_stale"},
		{`dns_config { max_stale = "5s" }`, "dns_config.max_stale"},
		{`dns_config { disable_compression = true }`, "dns_config.disable_compression"},
		{`raft_logstore { backend = "wal" }`, "raft_logstore"},
		{`raft_snapshot_interval = "5s"`, "raft_snapshot_interval"},
		{`server_rejoin_age_max = "24h"`, "server_rejoin_age_max"},
		{`disable_host_node_id = false`, "disable_host_node_id"},
		{`ae_interval = "5s"`, "ae_interval"},
		{`translate_wan_addrs = true`, "translate_wan_addrs"},
		{`performance { enable_xds_load_balancing = false }`, ""},
		{`enable_agent_tls_for_checks = true`, "enable_agent_tls_for_checks"},
	} {
		_, warnings, err := load(t, tt.hcl)
		if err != nil {
			t.Errorf("%s: %v", tt.hcl, err)
		}
		named := ""
		for _, w := range warnings {
			named += w.Key
		}
		if named != tt.want {
			t.Errorf("%s: named %q, want %q", tt.hcl, named, tt.want)
		}
	}
}
