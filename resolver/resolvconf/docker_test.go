package resolvconf

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const packagedSocket = "/usr/lib/systemd/system/meibo.socket"

func TestDocker_ThereAndBack(t *testing.T) {
	for _, tc := range []struct {
		name, before, address string
		want, after           string
	}{
		{"no daemon.json", "", "", "172.17.0.1", "{\n  \"dns\": [\"172.17.0.1\"]\n}\n"},
		{"an empty one", "{}\n", "", "172.17.0.1", "{\n  \"dns\": [\"172.17.0.1\"]\n}\n"},
		{"other keys stay as they are", "{\n    \"live-restore\": true,\n    \"log-driver\": \"journald\"\n}", "", "172.17.0.1",
			"{\n  \"dns\": [\"172.17.0.1\"],\n    \"live-restore\": true,\n    \"log-driver\": \"journald\"\n}"},
		{"a bridge of its own", `{"bip": "10.200.0.1/24"}`, "", "10.200.0.1", "{\n  \"dns\": [\"10.200.0.1\"],\"bip\": \"10.200.0.1/24\"}"},
		{"servers of others", "{\"dns\": [\n \"8.8.8.8\"], \"debug\": true}\n", "", "172.17.0.1", "{\"dns\": [\"172.17.0.1\"], \"debug\": true}\n"},
		{"a link-local address", "{}", "169.254.53.53", "169.254.53.53", "{\n  \"dns\": [\"169.254.53.53\"]\n}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{packagedSocket: "", "/etc/docker/key.json": "{}"}
			if tc.before != "" {
				files[dockerFile] = tc.before
			}
			p := play(t, files)
			before := pictured(t, p.Root)
			var address netip.Addr
			if tc.address != "" {
				address = netip.MustParseAddr(tc.address)
			}
			shown, err := p.Docker(address)
			must(t, err)
			if shown.State != Off || shown.Files[dockerFile] != tc.after {
				t.Errorf("shown: %+v", shown)
			}
			same(t, before, pictured(t, p.Root))
			var asked []netip.AddrPort
			p.Check = func(_ context.Context, server netip.AddrPort, _ string) error {
				asked = append(asked, server)
				return nil
			}
			s, err := p.InstallDocker(t.Context(), address, "")
			must(t, err)
			if s.State != Installed || s.Address.String() != tc.want || !slices.Equal(s.DNS, []string{tc.want}) || !strings.Contains(s.Next, "restart docker") {
				t.Errorf("installed: %+v", s)
			}
			text, err := p.tree().follow(dockerFile)
			if err != nil || text != tc.after || !json.Valid([]byte(text)) {
				t.Errorf("daemon.json: %q, %v; want %q", text, err, tc.after)
			}
			socket, _ := p.tree().follow(dockerSocket)
			if !strings.Contains(socket, "ListenDatagram="+tc.want+":53\n") || strings.Contains(socket, "dev lo") != (tc.address != "") {
				t.Errorf("the socket's drop-in: %s", socket)
			}
			if len(asked) != 1 || asked[0].Addr().String() != tc.want {
				t.Errorf("asked %v", asked)
			}
			if diff := cmp.Diff([]string{"systemctl daemon-reload", "systemctl restart meibo.socket meibo.service"}, p.ran); diff != "" {
				t.Error(diff)
			}
			_, err = p.InstallDocker(t.Context(), netip.Addr{}, "") // once more: nothing to do
			must(t, err)
			_, err = p.RestoreDocker(t.Context())
			must(t, err)
			same(t, before, pictured(t, p.Root))
		})
	}
}

func TestDocker_WhatOthersChangedSince(t *testing.T) {
	for _, tc := range []struct{ name, before, since, want string }{
		{"another key", "{}", `{"dns": ["172.17.0.1"], "debug": true}`, `{ "debug": true}`},
		{"another key before it", "{}", `{"debug": true, "dns": ["172.17.0.1"]}`, "{\"debug\": true\n}"},
		{"another key, and servers of before", `{"dns": ["9.9.9.9"]}`, `{"debug": true, "dns": ["172.17.0.1"]}`, `{"debug": true, "dns": ["9.9.9.9"]}`},
		{"other servers", "{}", `{"dns": ["1.1.1.1"]}`, `{"dns": ["1.1.1.1"]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := play(t, map[string]string{packagedSocket: "", dockerFile: tc.before})
			_, err := p.InstallDocker(t.Context(), netip.Addr{}, "")
			must(t, err)
			must(t, os.WriteFile(filepath.Join(p.Root, dockerFile), []byte(tc.since), 0o640))
			s, err := p.RestoreDocker(t.Context())
			must(t, err)
			text, err := p.tree().follow(dockerFile)
			if err != nil || text != tc.want || !json.Valid([]byte(text)) || len(s.Notes) != 1 {
				t.Errorf("%q, %v, notes %q; want %q", text, err, s.Notes, tc.want)
			}
		})
	}
}

func TestDocker_RefusesWithWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		name    string
		files   map[string]string
		address string
		check   error
		want    string
	}{
		{"no Docker", map[string]string{packagedSocket: ""}, "", nil, "there is no Docker on this host"},
		{"a fault in daemon.json", map[string]string{dockerFile: "{\n  \"debug\": true,\n  oops\n}"}, "", nil, "/etc/docker/daemon.json: line 3: "},
		{"an address of loopback", map[string]string{dockerFile: "{}"}, "127.0.0.1", nil, "containers do not reach this host at 127.0.0.1"},
		{"nobody answers there", map[string]string{dockerFile: "{}", packagedSocket: ""}, "", errors.New("refused"), "meibo does not resolve names at the address for containers: refused\neverything is as it was"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := play(t, tc.files)
			before := pictured(t, p.Root)
			p.Check = func(context.Context, netip.AddrPort, string) error { return tc.check }
			var address netip.Addr
			if tc.address != "" {
				address = netip.MustParseAddr(tc.address)
			}
			if _, err := p.InstallDocker(t.Context(), address, ""); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			same(t, before, pictured(t, p.Root))
		})
	}
}

func FuzzWithDNS(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":1}`, `{"dns":["1.1.1.1"],"a":{}}`, "{ \"a\" : [1,2] ,\n\"dns\":[] }", `{"\u0064ns":1}`, "[", "{\"a\":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, before string) {
		after, err := withDNS([]byte(before), "172.17.0.1")
		if err != nil {
			return
		}
		var settings map[string]json.RawMessage
		if err := json.Unmarshal(after, &settings); err != nil {
			t.Fatalf("%q became %q: %v", before, after, err)
		}
		if string(settings["dns"]) != `["172.17.0.1"]` {
			t.Fatalf("%q became %q", before, after)
		}
		back, ok := withoutDNS(after, []byte(before), "172.17.0.1")
		if !ok || !json.Valid(back) {
			t.Fatalf("%q became %q and back %q, %v", before, after, back, ok)
		}
	})
}
