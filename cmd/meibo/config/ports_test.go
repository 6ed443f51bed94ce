package config

import (
	"strings"
	"testing"
)

func TestLoad_RefusesListenersInEachOthersWay(t *testing.T) {
	const key = `encrypt = "bmV1dHJhbC1rZXktb2YtMzItYnl0ZXMtZm9yLXRlc3Q=" `
	for _, tt := range []struct{ hcl, want string }{
		{"ports { dns = 9000\n http = 9000 }", `a.hcl:2: key "ports.http": 127.0.0.1:9000 (TCP) is in the way of ports.dns (a.hcl:1), 127.0.0.1:9000: give each a port of its own`},
		{`ports { dns = 8500 }`, `a.hcl:1: key "ports.dns": 127.0.0.1:8500 (TCP) is in the way of ports.http (its default), 127.0.0.1:8500: give each a port of its own`},
		{`ports { http = 9000 https = 9000 }`, `a.hcl:1: key "ports.https": 127.0.0.1:9000 (TCP) is in the way of ports.http (a.hcl:1), 127.0.0.1:9000: give each a port of its own`},
		{`ports { server = 8301 }`, `a.hcl:1: key "ports.server": 127.0.0.1:8301 (TCP) is in the way of ports.serf_lan (its default), 127.0.0.1:8301: give each a port of its own`},
		{key + `ports { serf_lan = 8300 }`, `a.hcl:1: key "ports.serf_lan": 0.0.0.0:8300 (TCP) is in the way of ports.server (its default), 0.0.0.0:8300: give each a port of its own`},
		{key + `server = true ports { serf_lan = 8302 }`, `a.hcl:1: key "ports.serf_lan": 0.0.0.0:8302 (TCP) is in the way of ports.serf_wan (its default), 0.0.0.0:8302: give each a port of its own`},
		{`ports { serf_lan = 9000 serf_wan = 9000 }`, `a.hcl:1: key "ports.serf_wan": 127.0.0.1:9000 (TCP) is in the way of ports.serf_lan (a.hcl:1), 127.0.0.1:9000: give each a port of its own`},
		{`listen = ["fe80::1"]`, `a.hcl:1: key "listen": expected an address such as "127.0.0.1:53" or "[::1]:53", got the string "fe80::1"`},
		{`client_addr = "224.0.0.1"`, `a.hcl:1: key "client_addr": expected IP addresses separated by spaces, templates, or unix:///path, got the string "224.0.0.1"`},
		{`addresses { http = "unix://" }`, `a.hcl:1: key "addresses.http": expected IP addresses separated by spaces, templates, or unix:///path, got the string "unix://"`},
		{key + `ports { dns = 8301 }`, `a.hcl:1: key "ports.dns": 127.0.0.1:8301 (TCP) is in the way of ports.serf_lan (its default), 0.0.0.0:8301: give each a port of its own`},
		{key + `ports { http = 8300 }`, `a.hcl:1: key "ports.http": 127.0.0.1:8300 (TCP) is in the way of ports.server (its default), 0.0.0.0:8300: give each a port of its own`},
		{`listen = ["0.0.0.0:53", "127.0.0.1:53"]`, `a.hcl:1: key "listen": 0.0.0.0:53 and 127.0.0.1:53 (TCP) are in each other's way: leave one out`},
		{`listen = ["127.0.0.1", "[::]:53"]`, `a.hcl:1: key "listen": 127.0.0.1:53 and [::]:53 (TCP) are in each other's way: leave one out`},
		{`listen = ["127.0.0.1:8500"]`, `a.hcl:1: key "listen": 127.0.0.1:8500 (TCP) is in the way of ports.http (its default), 127.0.0.1:8500: give each a port of its own`},
		{`client_addr = "0.0.0.0 127.0.0.1"`, "a.hcl:1: key \"client_addr\": 0.0.0.0:8600 and 127.0.0.1:8600 (TCP) are in each other's way: leave one out\na.hcl:1: key \"client_addr\": 0.0.0.0:8500 and 127.0.0.1:8500 (TCP) are in each other's way: leave one out"},
		{`addresses { http = "0.0.0.0" } listen = ["[::1]:8500"]`, `a.hcl:1: key "addresses.http": 0.0.0.0:8500 (TCP) is in the way of listen (a.hcl:1), [::1]:8500: give each a port of its own`},
		{`addresses { http = "unix:///x" https = "unix:///x" } ports { https = 8501 }`, `a.hcl:1: key "addresses.https": unix:///x is what addresses.http (a.hcl:1) listens on too: give each a path of its own`},
		{"performance { raft_multiplier = 0 }", `a.hcl:1: key "performance.raft_multiplier": expected an integer from 1 to 10, got the number 0`},
		{"dns_config { soa { refresh = 4294967295 } }", `a.hcl:1: key "dns_config.soa.refresh": expected an integer from 0 to 2147483647, got the number 4294967295`},
	} {
		_, _, err := load(t, tt.hcl)
		if err == nil {
			t.Errorf("%s: loads; want %s", tt.hcl, tt.want)
		} else if got := strings.ReplaceAll(err.Error(), dirOf(err.Error()), ""); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.hcl, got, tt.want)
		}
	}
}

// dirOf is the directory that a text names within: of the place of another key.
func dirOf(text string) string {
	_, rest, _ := strings.Cut(text, "(/")
	if dir, _, ok := strings.Cut(rest, "a.hcl"); ok {
		return "/" + dir
	}
	return ""
}

func TestLoad_TakesListenersThatAreNotInEachOthersWay(t *testing.T) {
	for _, hcl := range []string{
		`listen = ["0.0.0.0:53", "[::]:53"]`, `listen = ["127.0.0.1:53", "[::1]:53", "127.0.0.2:53"]`, `client_addr = "0.0.0.0 ::"`, `client_addr = "127.0.0.1 ::1"`,
		`listen = ["127.0.0.1:0"] ports { http = 0 }`, `listen = ["127.0.0.2:8500"]`, `ports { serf_lan = 8302 }`, `ports { dns = -1 http = -1 }`, `listen = ["[fe80::1%eth0]:53"]`, `ports { grpc = 8500 }`,
		`bind_addr = "127.0.0.2" listen = ["127.0.0.1:8301"]`, `ports { serf_lan = -1 server = 8500 }`, `client_addr = "127.0.0.1 127.0.0.1"`,
		`listen = ["127.0.0.1:8302"]`, `addresses { http = "unix:///x 127.0.0.1" }`,
	} {
		if _, _, err := load(t, hcl); err != nil {
			t.Errorf("%s: %v", hcl, err)
		}
	}
}

// What a room refuses once the daemon starts is refused when the files are read, with a
// place: validate must not call valid what does not start.
func TestLoad_RefusesWhatTheRoomsRefuse(t *testing.T) {
	label := strings.Repeat("a", 63)
	for _, tt := range []struct{ hcl, want string }{
		{"\ndatacenter = \"" + label + "b\"", `a.hcl:2: key "datacenter": expected a name of at most 63 characters`},
		{"\ndomain = \"" + strings.Repeat(label+".", 3) + label[:50] + `"`, `a.hcl:2: key "domain": `},
		{"\nalt_domain = \"" + strings.Repeat(label+".", 3) + label[:50] + `"`, `a.hcl:2: key "alt_domain": `},
		{"\nforward \"consul\" { servers = [\"127.0.0.1:8600\"] }", "a.hcl:2: key `forward \"consul\"`: forwarder: route consul. has no server to ask"},
		{"\nrecursors = [\"127.0.0.1:8600\"]", `a.hcl:2: key "recursors": forwarder: route . has no server to ask`},
	} {
		if _, _, err := load(t, tt.hcl); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.hcl, err, tt.want)
		}
	}
	if c := mustLoad(t, `recursors = ["192.0.2.1", "192.0.2.2"] dns_config { recursor_timeout = "2562047h" }`); c.Routes(nil)[0].Timeout < 0 {
		t.Error("the timeout of the default route overflows")
	}
}
