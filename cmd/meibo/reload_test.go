package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"meibo/cluster/definition"
	"meibo/cluster/httpapi/client"
	"meibo/cmd/meibo/config"
)

// reloadable makes a daemon of a site that reads its files again, without running it.
func reloadable(t *testing.T, more string) (*daemon, *site) {
	t.Helper()
	s := newSite(t, more)
	load := func(registered func(string) bool) (*config.Config, []config.Warning, error) {
		return config.Load(config.Sources{Dev: true, Paths: []string{filepath.Join(s.dir, "conf")}, Registered: registered})
	}
	cfg, _, err := load(nil)
	must(t, err)
	d, err := newDaemon(daemonConfig{Config: cfg, Load: load})
	must(t, err)
	return d, s
}

// askAs asks the daemon's API under a Host of the given name.
func askAs(d *daemon, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://"+host+"/v1/agent/self", nil)
	w := httptest.NewRecorder()
	d.api.ServeHTTP(w, r)
	return w
}

func TestReload_KeysThatNeedNoRestartAreTaken(t *testing.T) {
	d, s := reloadable(t, `node_meta { rack = "r1" }`)
	if w := askAs(d, "ui.example"); w.Code != http.StatusForbidden {
		t.Fatalf("a foreign Host got %d", w.Code)
	}
	writeFile(t, s.dir, "conf/more.hcl", `
		node_meta { rack = "r2" }
		http_config { allowed_hosts = ["ui.example"]  response_headers { X-Site = "b" } }`)
	if waiting, err := d.Reload(t.Context()); err != nil || len(waiting) > 0 {
		t.Fatalf("%v wait for a restart; %v", waiting, err)
	}
	w := askAs(d, "ui.example")
	if w.Code != http.StatusOK || w.Header().Get("X-Site") != "b" || !strings.Contains(w.Body.String(), `"rack":"r2"`) {
		t.Errorf("got %d, headers %v, body %s", w.Code, w.Header(), w.Body)
	}
	if got := d.node.Record().Meta["rack"]; got != "r2" {
		t.Errorf("the node's record has rack %q", got)
	}
}

func TestReload_WhatOnePartRefusesNoPartTakes(t *testing.T) {
	for name, spoil := range map[string]func(*config.Config){
		"a service": func(c *config.Config) {
			c.Agent.Services = append(c.Agent.Services, definition.Service{Name: "bad", Address: "0.0.0.0"})
		},
		"a route":  func(c *config.Config) { c.Forward.Routes = append(c.Forward.Routes, c.Forward.Routes[0]) },
		"a record": func(c *config.Config) { c.Hosts.Records = []string{"nonsense"} },
		"a host":   func(c *config.Config) { c.HTTP.AllowedHosts = []string{"http://x"} },
	} {
		t.Run(name, func(t *testing.T) {
			d, s := reloadable(t, `forward "corp.example" { servers = ["192.0.2.53"] }`)
			writeFile(t, s.dir, "conf/more.hcl", `
				service { name = "late" address = "192.0.2.20" port = 1 }
				node_meta { rack = "r2" }
				http_config { allowed_hosts = ["ui.example"] }
				dns_config { only_passing = true }`)
			load := d.load
			d.load = func(registered func(string) bool) (*config.Config, []config.Warning, error) {
				cfg, warnings, err := load(registered)
				if err == nil {
					spoil(cfg)
				}
				return cfg, warnings, err
			}
			before := d.cfg
			if _, err := d.Reload(t.Context()); err == nil {
				t.Fatal("taken")
			}
			if d.node.Agent().Services()["late"] != nil || d.node.Record().Meta["rack"] != "" ||
				askAs(d, "ui.example").Code != http.StatusForbidden || d.dns.cfg != before || d.cfg != before {
				t.Error("half of it was taken")
			}
		})
	}
}

func TestExecute_ACommandLineThatMakesNoSenseExitsWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"lokup"}, {"agent", "-no-such-flag"}, {"lookup"}, {"catalog", "foo"}, {"operator", "raft", "lst"}, {"operator", "raft", "lst", "-json"},
		{"operator", "rft"}, {"operator", "autopilot", "foo", "-h"}, {"nodes", "forgt"}, {"keyring", "lst"}, {"completion", "bsh"}, {"help", "agnt"},
		{"help", "operator", "rft"}, {"services", "web"}, {"agent", "x"}, {"members", "-json", "x"}, {"validate"}, {"keygen", "-json"},
		{"agent", "-json"}, {"members", "-format", "yaml"}, {"operator", "-json"},
	} {
		if code := execute(t.Context(), args); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if err := explained(nil, errors.New("as it is")); err.Error() != "as it is" {
		t.Errorf("got %v", err)
	}
	for text, hint := range map[string]bool{"No known Consul servers": true, "rpc error making call: connection refused": true, "No cluster leader": true, "Unknown check": false} {
		err := explained(nil, &client.Error{Status: 500, Text: text})
		if !strings.HasPrefix(err.Error(), text) || strings.Contains(err.Error(), "meibo members -detailed") != hint {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
