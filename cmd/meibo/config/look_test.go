package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meibo/cluster/gossip"
)

// TestUnreachable_AHostToJoinFromLoopback: the one fault that keeps a cluster from forming and is in no file alone.
func TestUnreachable_AHostToJoinFromLoopback(t *testing.T) {
	for name, tt := range map[string]struct{ cluster, host, want string }{
		"the later file wins": {key + `retry_join = ["10.0.0.11", "10.0.0.12:8301"]`, `bind_addr = "127.0.0.1"`,
			`cluster.hcl:2: key "retry_join": 10.0.0.11, 10.0.0.12 can't be reached: bind_addr (host.hcl:1) is 127.0.0.1, a loopback address`},
		"gossip alone":            {key + `retry_join = ["10.0.0.11"]`, `serf_lan = "127.0.0.1"`, `serf_lan (host.hcl:1) is 127.0.0.1`},
		"IPv6":                    {key + `retry_join = ["[fd00::1]:8301"]`, `bind_addr = "::1"`, `fd00::1 can't be reached: bind_addr (host.hcl:1) is ::1`},
		"a name":                  {key + `retry_join = ["Servers.example"]`, `bind_addr = "127.0.0.1"`, `servers.example (unless it is this machine) can't be reached`},
		"the old name of the key": {key + `start_join = ["10.0.0.11"]`, `bind_addr = "127.0.0.1"`, `10.0.0.11 can't be reached`},
		"in the clear":            {`encrypt = "none" retry_join = ["10.0.0.11"]`, `bind_addr = "127.0.0.1"`, `10.0.0.11 can't be reached`},
		"no port of gossip":       {key + `retry_join = ["10.0.0.11"]`, `ports { serf_lan = -1 }`, `10.0.0.11 can't be reached: ports.serf_lan (host.hcl:1) is off`},
		"no port of servers":      {key + `retry_join = ["10.0.0.11"]`, `ports { server = -1 }`, `10.0.0.11 can't be reached: ports.server (host.hcl:1) is off`},
		"advertised on loopback":  {key + `retry_join = ["10.0.0.11"]`, `advertise_addr = "127.0.0.1"`, `10.0.0.11 can't be reached: advertise_addr (host.hcl:1) is 127.0.0.1`},
		"this very host":          {key + `retry_join = ["192.168.1.5", "127.0.0.2", "localhost"]`, `bind_addr = "127.0.0.1"`, ""},
		"bound to all":            {key + `retry_join = ["10.0.0.11"]`, ``, ""},
		"bound to one":            {key + `retry_join = ["10.0.0.11"]`, `bind_addr = "192.168.1.5"`, ""},
		"a program":               {key + `retry_join = ["exec=/bin/hosts"]`, `bind_addr = "127.0.0.1"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "cluster.hcl", tt.cluster, "host.hcl", tt.host)
			_, warnings, err := Load(Sources{Paths: []string{dir}, Partial: true, Host: Host{
				Name:      func() (string, error) { return "h1", nil },
				Addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.168.1.5")}, nil },
			}})
			if err != nil {
				t.Fatal(err)
			}
			checkWarnings(t, dir, warnings, tt.want)
		})
	}
}

// TestLook_WhatKeepsTheDaemonFromItsSockets on this host, as things are now.
func TestLook_WhatKeepsTheDaemonFromItsSockets(t *testing.T) {
	here := Host{
		Name: func() (string, error) { return "h1", nil },
		Has:  func(a netip.Addr) bool { return a != netip.MustParseAddr("192.0.2.9") },
		InUse: func(proto string, at netip.AddrPort) string {
			return map[string]string{
				"tcp 127.0.0.1:53": "dnsmasq (pid 7)", "udp 127.0.0.1:53": "dnsmasq (pid 7)", "tcp 127.0.0.1:8500": "consul (pid 8)",
				"udp 127.0.0.1:8301": "consul (pid 8)", "tcp 127.0.0.1:8300": "consul (pid 8)", "tcp 127.0.0.1:8501": "meibo (pid 9)",
				"udp 127.0.0.1:5353": "systemd (pid 1), meibo (pid 9)", "tcp 127.0.0.1:5354": "systemd (pid 1)",
			}[proto+" "+at.String()]
		},
	}
	data := t.TempDir()
	ring := filepath.Join(data, "serf", "local.keyring")
	gone, kept := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	mine := write(t, "lock", "9\n") // the data_dir of the daemon that runs
	k, err := gossip.OpenKeyring(ring, gone)
	if err := errors.Join(err, k.Install(kept), k.Use(kept), k.Remove(gone)); err != nil {
		t.Fatal(err)
	}
	const off = "ports { http = -1 server = -1 serf_lan = -1 } "
	for name, tt := range map[string]struct {
		hcl  string
		want []string
	}{
		"DNS": {off + `listen = ["127.0.0.1:53"]`, []string{"a.hcl:1: key \"listen\": 127.0.0.1:53 is taken by dnsmasq (pid 7): `meibo agent` would not start; stop that"}},
		"HTTP, gossip and the servers' port": {``, []string{
			`key "ports.http": 127.0.0.1:8500 is taken by consul (pid 8): the API would not be served`,
			`key "ports.server": 127.0.0.1:8300 is taken by consul (pid 8): this host would speak to no other`,
			`key "ports.serf_lan": 127.0.0.1:8301 is taken by consul (pid 8): this host would speak to no other`,
		}},
		"a daemon that runs":    {`ports { http = 8501 server = -1 serf_lan = -1 } listen = ["127.0.0.1:5353", "127.0.0.1:5354"]`, nil},
		"that of this data_dir": {`ports { http = 8501 server = -1 serf_lan = -1 } listen = ["127.0.0.1:5353", "127.0.0.1:5354"] data_dir = "` + mine + `"`, nil},
		"that of another": {`ports { http = 8501 server = -1 serf_lan = -1 } listen = ["127.0.0.1:5353", "127.0.0.1:5354"] data_dir = "` + data + `"`, []string{
			`key "ports.http": 127.0.0.1:8501 is taken by meibo (pid 9)`,
			`key "listen": 127.0.0.1:5353 is taken by systemd (pid 1), meibo (pid 9)`,
		}},
		"an address of no interface":        {off + `listen = ["192.0.2.9:53"]`, []string{"a.hcl:1: key \"listen\": no interface of this host has the address 192.0.2.9: `meibo agent` would not start"}},
		"the same for HTTP":                 {`ports { http = 80 server = -1 serf_lan = -1 } addresses { http = "192.0.2.9" }`, []string{`a.hcl:1: key "addresses.http": no interface`}},
		"the same for others":               {`ports { http = -1 } bind_addr = "192.0.2.9" encrypt = "none"`, []string{`key "bind_addr": no interface of this host has the address 192.0.2.9: this host would speak to no other`}},
		"a socket's folder":                 {`ports { http = 80 server = -1 serf_lan = -1 } addresses { http = "unix:///no/such/folder/http.sock" }`, []string{`key "addresses.http": the folder /no/such/folder of the socket`}},
		"users that are not there":          {off + `unix_sockets { user = "nobody-at-all" group = "none-at-all" }`, []string{`key "unix_sockets.user": "nobody-at-all" is not known`, `key "unix_sockets.group": "none-at-all" is not known`}},
		"a long way to the control socket":  {off + `data_dir = "/` + strings.Repeat("d", 100) + `"`, []string{`a.hcl:1: key "data_dir": too long a path for the control socket in it, of 114 octets`}},
		"a key that was removed":            {off + `encrypt = "` + base64.StdEncoding.EncodeToString(gone) + `" data_dir = "` + data + `"`, []string{`a.hcl:1: key "encrypt": that key was removed from the cluster's keyring, says ` + ring + `.past, and is not used`}},
		"another key":                       {off + `encrypt = "` + base64.StdEncoding.EncodeToString(kept) + `" data_dir = "` + data + `"`, nil},
		"users by number, and who is there": {off + `unix_sockets { user = "root" group = "12345" }`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "a.hcl", tt.hcl)
			_, warnings, err := Load(Sources{Paths: []string{dir}, Partial: true, Look: true, Host: here})
			if err != nil {
				t.Fatal(err)
			}
			checkWarnings(t, dir, warnings, tt.want...)
		})
	}
}

// checkWarnings wants these serious ones, and no others.
func checkWarnings(t *testing.T, dir string, got []Warning, want ...string) {
	t.Helper()
	want = slices.DeleteFunc(want, func(s string) bool { return s == "" })
	got = slices.DeleteFunc(got, func(w Warning) bool { return !w.Serious })
	if len(got) != len(want) {
		t.Errorf("%d warnings, want %d", len(got), len(want))
	}
	var all strings.Builder
	for _, w := range got {
		all.WriteString(strings.ReplaceAll(w.String(), dir+"/", "") + "\n")
	}
	for _, part := range want {
		if !strings.Contains(all.String(), part) {
			t.Errorf("no warning %s in\n%s", part, &all)
		}
	}
}

// TestLook_WhatThePackageMakesOtherwise: its sockets are those of a unit, its user is not root.
func TestLook_WhatThePackageMakesOtherwise(t *testing.T) {
	at := netip.MustParseAddrPort
	here := Host{
		Name: func() (string, error) { return "h1", nil }, Has: func(netip.Addr) bool { return true },
		InUse: func(_ string, a netip.AddrPort) string {
			return map[string]string{"127.0.0.1:53": "dnsmasq (pid 7)"}[a.String()]
		},
		UnitSockets: func() ([]netip.AddrPort, bool) { return []netip.AddrPort{at("127.0.0.1:53")}, true },
	}
	const off = "ports { http = -1 server = -1 serf_lan = -1 } "
	for name, tt := range map[string]struct {
		hcl  string
		want []string
	}{
		"the unit's port is taken":  {off, []string{"127.0.0.1:53 is taken by dnsmasq (pid 7): `meibo agent` would not start"}},
		"an address it lacks":       {off + `listen = ["[::1]:53"]`, []string{"a.hcl:1: key \"listen\": [::1]:53 would not be listened on: the sockets of ports below 1024 are made by meibo.socket, which lacks it"}},
		"a port that needs nothing": {off + `listen = ["127.0.0.1:5300"]`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "a.hcl", tt.hcl)
			_, warnings, err := Load(Sources{Paths: []string{dir}, Partial: true, Look: true, Host: here})
			if err != nil {
				t.Fatal(err)
			}
			checkWarnings(t, dir, warnings, tt.want...)
		})
	}
}

// TestUnitSockets_AsSystemdReadsThem: the first folder's unit, the drop-ins of all, an empty line takes back.
func TestUnitSockets_AsSystemdReadsThem(t *testing.T) {
	etc, lib := t.TempDir(), t.TempDir()
	file := func(dir, path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := unitSockets([]string{etc, lib}); there {
		t.Error("there is none")
	}
	file(lib, "meibo.socket", "[Socket]\nListenDatagram=127.0.0.1:53\nListenDatagram=127.0.0.1:53\nListenStream=127.0.0.1:53\n")
	if got, _ := unitSockets([]string{etc, lib}); fmt.Sprint(got) != "[127.0.0.1:53]" {
		t.Errorf("the unit: %v", got)
	}
	file(lib, "meibo.socket.d/b.conf", "ListenDatagram=127.0.0.9:53\n")
	file(etc, "meibo.socket.d/b.conf", "ListenDatagram=[::1]:53\n")
	if got, _ := unitSockets([]string{etc, lib}); fmt.Sprint(got) != "[127.0.0.1:53 [::1]:53]" {
		t.Errorf("with a drop-in: %v", got)
	}
	file(etc, "meibo.socket.d/c.conf", "[Socket]\nListenDatagram=\nListenDatagram=127.0.0.1:5300\n")
	if got, _ := unitSockets([]string{etc, lib}); fmt.Sprint(got) != "[127.0.0.1:5300]" {
		t.Errorf("taken back: %v", got)
	}
}

// TestMayRead_ByModesOfFileAndFolders.
func TestMayRead_ByModesOfFileAndFolders(t *testing.T) {
	nobody := &user.User{Uid: "65533", Gid: "65533", Username: "no-such-user"}
	dir, err := os.MkdirTemp("/var/tmp", "meibo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "a.hcl")
	for _, tt := range []struct {
		folder, file os.FileMode
		want         bool
	}{{0o755, 0o644, true}, {0o755, 0o600, false}, {0o700, 0o644, false}, {0o711, 0o604, true}} {
		if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Chmod(file, tt.file), os.Chmod(dir, tt.folder)); err != nil {
			t.Fatal(err)
		}
		if got := mayRead(nobody, file); got != tt.want {
			t.Errorf("folder %o, file %o: %v", tt.folder, tt.file, got)
		}
	}
}
