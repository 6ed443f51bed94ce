package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// describe writes definitions one to a line.
func describe(a Agent) string {
	var b strings.Builder
	line := func(c definition.Check, indent string) {
		fmt.Fprintf(&b, "%scheck %q name=%q kind=%s args=%q interval=%s ttl=%s after=%s\n", indent, c.ID, c.Name, c.Kind(), c.ScriptArgs, c.Interval, c.TTL, c.DeregisterCriticalServiceAfter)
	}
	for _, s := range a.Services {
		fmt.Fprintf(&b, "service %q name=%q port=%d tags=%q override=%v\n", s.ID, s.Name, s.Port, s.Tags, s.EnableTagOverride)
		for _, c := range s.Checks {
			line(c, "  ")
		}
	}
	for _, c := range a.Checks {
		line(c, "")
	}
	return b.String()
}

func TestLoad_ATreeAsFoundOnHosts(t *testing.T) {
	c, warnings, err := Load(Sources{Paths: []string{filepath.Join("testdata", "consul.d")}, Host: host})
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	golden(t, "consul.d.warnings.txt", said(warnings))
	golden(t, "consul.d.definitions.txt", describe(c.Agent))
	if got, want := c.Node.Bind.String(), "127.0.0.1"; got != want {
		t.Errorf("bind_addr %s, want %s", got, want)
	}
	if got := c.ACL.Tokens.Agent.Reveal(); got != "0d4f1a52-0000-4000-8000-000000000002" {
		t.Errorf("acl_agent_token is lost: %q", got)
	}
}

func TestLoad_Services(t *testing.T) {
	c := mustLoad(t, `
acl { tokens { config_file_service_registration = "t0" } }
service {
  name = "web" address = "web.example" port = 80 meta { v = "1" } weights { passing = 5 }
  tagged_addresses { wan { address = "192.0.2.1" port = 443 } lan_ipv6 = { address = "fd00::1" } }
  check { http = "http://web/" header { Host = ["a", "b"] } interval = "10s" h2ping_use_tls = false success_before_passing = 2 }
}
service { name = "db" token = "t1" }`)
	web, db := c.Agent.Services[0], c.Agent.Services[1]
	if web.ID != "web" || web.Address != "web.example" || web.Token != "t0" || db.Token != "t1" {
		t.Errorf("got %+v, %+v", web, db)
	}
	if web.Weights == nil || web.Weights.Passing != 5 || web.Weights.Warning != 1 || db.Weights != nil {
		t.Errorf("weights %v, %v", web.Weights, db.Weights)
	}
	if a := web.TaggedAddresses["wan"]; a.Address != "192.0.2.1" || a.Port != 443 {
		t.Errorf("wan %v", a)
	}
	ch := web.Checks[0]
	if ch.Kind() != check.KindHTTP || ch.Interval != 10*time.Second || len(ch.Header["Host"]) != 2 || ch.SuccessBeforePassing != 2 || ch.H2PingUseTLS == nil || *ch.H2PingUseTLS {
		t.Errorf("check %+v", ch)
	}
}

func TestLoad_LegacyNames(t *testing.T) {
	c, warnings, err := load(t, `
acl_datacenter = "dc0"
acl_default_policy = "deny"
acl_down_policy = "allow"
acl_ttl = "10s"
acl_token = "a"
acl_agent_token = "b"
acl_master_token = "c"
acl_agent_master_token = "d"
acl_replication_token = "e"
enable_acl_replication = true
acl_enable_key_list_policy = true
acl_enforce_version_8 = true
start_join = ["10.0.0.1"]
retry_join = ["10.0.0.2"]
recursor = "10.0.0.53"
recursors = ["10.0.0.54"]
verify_incoming = true
verify_incoming_rpc = true
verify_incoming_https = true
verify_outgoing = true
verify_server_hostname = true
ca_file = "a" ca_path = "b" cert_file = "c" key_file = "d" tls_min_version = "tls12" tls_cipher_suites = "x" tls_prefer_server_cipher_suites = true
statsd_addr = "127.0.0.1:8125" atlas_token = "x" atlas_infrastructure = "y"
non_voting_server = false
ui = true ui_dir = "/ui" ui_content_path = "/x/"
tls { defaults { ca_file = "new" } }
enable_local_script_checks = true
check { name = "a" script = "exit 0" interval = "10s" }`)
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	golden(t, "legacy.warnings.txt", said(warnings))
	a := c.ACL
	got := fmt.Sprintln(c.Node.PrimaryDatacenter, a.Enabled, a.DefaultPolicy, a.DownPolicy, a.TokenTTL, a.Tokens.Default.Reveal(), a.Tokens.Agent.Reveal(),
		a.Tokens.InitialManagement.Reveal(), a.Tokens.AgentRecovery.Reveal(), a.Tokens.Replication.Reveal(), c.Cluster.RetryJoin, addrs(c.Forward.Recursors), c.Agent.Checks[0].ScriptArgs, c.TLS.CAFile)
	want := "dc0 true deny allow 10s a b c d e [10.0.0.2 10.0.0.1] 10.0.0.54:53 10.0.0.53:53 [/bin/sh -c exit 0] new\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDiff_SaysWhatNeedsARestart(t *testing.T) {
	old := mustLoad(t, `recursors = ["10.0.0.1"] ports { dns = 53 } service { name = "a" }`)
	tests := []struct{ hcl, want string }{
		{"\n\nservice { name = \"a\" }\nports { dns = 53 } recursors = [\"10.0.0.1\"] log_level = \"INFO\"", "[]"},
		{`recursors = ["10.0.0.2"] ports { dns = 53 } service { name = "a" }`, "[{recursors false}]"},
		{`recursors = ["10.0.0.1"] service { name = "b" }`, "[{ports.dns true} {services false}]"},
		{`recursors = ["10.0.0.1"] ports { dns = 53 } service { name = "a" } connect { enabled = true } domain = "x"`, "[{domain true} {connect false}]"},
	}
	for _, tt := range tests {
		if got := fmt.Sprint(Diff(old, mustLoad(t, tt.hcl))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.hcl, got, tt.want)
		}
	}
}

func TestLoad_Addresses(t *testing.T) {
	tests := []struct{ hcl, dns, advertise string }{
		{``, "127.0.0.1:8600", "10.0.0.7"},
		{`client_addr = "0.0.0.0"`, "0.0.0.0:8600", "10.0.0.7"},
		{`client_addr = "127.0.0.1 ::1" ports { dns = 53 }`, "127.0.0.1:53 [::1]:53", "10.0.0.7"},
		{`client_addr = "{{ GetInterfaceIP \"lo\" }}"`, "127.0.0.1:8600", "10.0.0.7"},
		{`addresses { dns = "10.0.0.9" } advertise_addr = "10.0.0.8"`, "10.0.0.9:8600", "10.0.0.8"},
		{`ports { dns = -1 } bind_addr = "10.0.0.5"`, "", "10.0.0.5"},
		{`listen = ["127.0.0.53", "[::1]:5353", "127.0.0.53:53"] ports { dns = -1 } bind_addr = "::"`, "127.0.0.53:53 [::1]:5353", "fd00::7"},
		{`client_addr = "[::1]" bind_addr = "[fd00::5]"`, "[::1]:8600", "fd00::5"},
		{`advertise_addr_ipv6 = "fd00::9"`, "127.0.0.1:8600", "fd00::9"},
	}
	for _, tt := range tests {
		c := mustLoad(t, tt.hcl)
		if got := addrs(c.Listen); got != tt.dns {
			t.Errorf("%s: DNS on %q, want %q", tt.hcl, got, tt.dns)
		}
		if got := c.Node.Advertise.String(); got != tt.advertise {
			t.Errorf("%s: advertises %s, want %s", tt.hcl, got, tt.advertise)
		}
	}
}

func TestLoad_ChoosesAmongTheHostsAddresses(t *testing.T) {
	tests := []struct {
		name, addrs, way, bind, want string
		warns                        bool
	}{
		{name: "one private", addrs: "10.0.0.7", way: "10.0.0.7", want: "10.0.0.7"},
		{name: "private beside public", addrs: "192.0.2.7 10.0.0.7", way: "192.0.2.7", want: "10.0.0.7"},
		{name: "several, one on the way out", addrs: "172.17.0.1 10.0.0.7", way: "10.0.0.7", want: "10.0.0.7"},
		{name: "several, none on the way out", addrs: "172.17.0.1 10.0.0.7", way: "192.0.2.7", want: "172.17.0.1", warns: true},
		{name: "public alone", addrs: "192.0.2.7 192.0.2.8", way: "192.0.2.8", want: "192.0.2.8"},
		{name: "public, no way out", addrs: "192.0.2.7 192.0.2.8", want: "192.0.2.7"},
		{name: "IPv6 alone", addrs: "fd00::7", want: "fd00::7"},
		{name: "IPv6 wanted", addrs: "10.0.0.7 fd00::7", bind: "::", want: "fd00::7"},
		{name: "none", want: "127.0.0.1", warns: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Host{Name: host.Name, Template: host.Template,
				Addresses: func() ([]netip.Addr, error) {
					var all []netip.Addr
					for _, s := range strings.Fields(tt.addrs) {
						all = append(all, netip.MustParseAddr(s))
					}
					return all, nil
				},
				Route: func(v6 bool) netip.Addr {
					if a, err := netip.ParseAddr(tt.way); err == nil && a.Is6() == v6 {
						return a
					}
					return netip.Addr{}
				},
			}
			bind := tt.bind
			if bind == "" {
				bind = "0.0.0.0"
			}
			c, warnings, err := Load(Sources{Partial: true, Host: h, Fragments: []string{fmt.Sprintf("bind_addr = %q", bind)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Node.Advertise.String(); got != tt.want || len(warnings) > 0 != tt.warns {
				t.Errorf("advertises %s with %v, want %s", got, warnings, tt.want)
			}
		})
	}
}

func TestLoad_OnThisMachine(t *testing.T) {
	c, _, err := Load(Sources{Dev: true, Fragments: []string{`client_addr = "{{ GetAllInterfaces | include \"flags\" \"loopback\" | include \"type\" \"ipv4\" | limit 1 | join \"address\" \" \" }}"`}})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Listen[0].Addr().IsLoopback() || c.Node.Name == "" || !c.Node.Advertise.IsValid() {
		t.Errorf("listens on %v as %q at %v", c.Listen, c.Node.Name, c.Node.Advertise)
	}
}

func TestValidate(t *testing.T) {
	dir := write(t, "a.hcl", `service { name = "a" check { ttl = "1m" } } acl { enabled = true }`)
	r, err := Validate([]string{dir}, "")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(r.String(), dir+"/", "")
	if !strings.HasPrefix(got, "Configuration is valid! (1 file, 1 service, 1 check)\n") || !strings.Contains(got, `WARNING: a.hcl:1: key "acl.enabled"`) {
		t.Errorf("got %s", got)
	}
	if _, err := Validate([]string{write(t, "a.hcl", "x = 1")}, ""); err == nil {
		t.Error("a fault is no error")
	}
}

func TestLoad_Forward(t *testing.T) {
	c := mustLoad(t, `
listen = ["127.0.0.1:53"]
forward "Corp.Example." { servers = ["10.0.0.2", "[fd00::2]:5353", "10.0.0.2:53"] mode = "strict" trust_ad = true }
forward "pub.corp.example" { servers = ["#"] }
forward "10.32.0.0/15" { servers = ["10.0.0.3"] }
forward "." { servers = ["10.0.0.4"] }
forward "consul" { servers = ["127.0.0.1:8600"] }`)
	var got []string
	for _, r := range c.Forward.Routes {
		got = append(got, fmt.Sprintf("%s %s %v %v %s", r.Suffix, r.Mode, r.TrustAD, r.Default, addrs(r.Servers)))
	}
	want := `. fastest false false 10.0.0.4:53
32.10.in-addr.arpa. fastest false false 10.0.0.3:53
33.10.in-addr.arpa. fastest false false 10.0.0.3:53
consul. fastest false false 127.0.0.1:8600
corp.example. strict true false 10.0.0.2:53 [fd00::2]:5353
pub.corp.example. fastest false true `
	if d := cmp.Diff(want, strings.Join(got, "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestReverseZones(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"10.0.0.0/8", "10.in-addr.arpa."},
		{"172.16.0.0/15", "16.172.in-addr.arpa. 17.172.in-addr.arpa."},
		{"192.0.2.0/24", "2.0.192.in-addr.arpa."},
		{"192.0.2.128/32", "128.2.0.192.in-addr.arpa."},
		{"fd00::/8", "d.f.ip6.arpa."},
		{"2001:db8::/32", "8.b.d.0.1.0.0.2.ip6.arpa."},
		{"fe80::/10", "8.e.f.ip6.arpa. 9.e.f.ip6.arpa. a.e.f.ip6.arpa. b.e.f.ip6.arpa."},
		{"fdf8::/13", "8.f.d.f.ip6.arpa. 9.f.d.f.ip6.arpa. a.f.d.f.ip6.arpa. b.f.d.f.ip6.arpa. c.f.d.f.ip6.arpa. d.f.d.f.ip6.arpa. e.f.d.f.ip6.arpa. f.f.d.f.ip6.arpa."},
		{"0.0.0.0/0", "in-addr.arpa."},
	} {
		if got := strings.Join(reverseZones(netip.MustParsePrefix(tt.in)), " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestLoad_AllowRecursion(t *testing.T) {
	c := mustLoad(t, `allow_recursion = ["10.1.2.3/8", "::ffff:192.0.2.9/120", "fd00::1/8"]`)
	if got, want := fmt.Sprint(c.AllowRecursion), "[10.0.0.0/8 192.0.2.0/24 fd00::/8]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c := mustLoad(t, `allow_recursion = []`); c.AllowRecursion == nil || len(c.AllowRecursion) != 0 {
		t.Errorf("an empty list is %v, want nobody's network", c.AllowRecursion)
	}
	if c := mustLoad(t, `datacenter = "dc1"`); c.AllowRecursion != nil {
		t.Errorf("unset it is %v", c.AllowRecursion)
	}
}
