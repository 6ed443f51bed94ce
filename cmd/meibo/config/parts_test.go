package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"meibo/cache"
	"meibo/cluster/agent"
	"meibo/forwarder"
	"meibo/resolver/consul"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

func TestParts_AreTakenByTheirRooms(t *testing.T) {
	c := mustLoad(t, `
recursors = ["10.0.0.1", "10.0.0.2"]
dns_config { recursor_strategy = "random" node_ttl = "5s" soa { min_ttl = 7 } udp_answer_limit = 3 enable_additional_node_meta_txt = false }
domain = "Example.Corp"
forward "corp.example" { servers = ["10.0.0.3"] }
forward "pub.corp.example" { servers = ["#"] }
hosts { files = [] records = ["nas.home A 192.0.2.7"] }
cache { stale = "0s" max_bytes = "1MiB" }
view { max_stale = "3s" stale_answer = "servfail" }
acl { tokens { default = "t" } }
performance { raft_multiplier = 2 }`)
	zone := c.ZoneConfig()
	if zone.Domain.String() != "Example.Corp." || zone.AltDomain != "" || zone.NodeTTL != 5*time.Second || zone.SOA.MinTTL != 7*time.Second || !zone.NoNodeMetaTXT || zone.UDPAnswerLimit != 3 || zone.MaxStale != 3*time.Second || zone.StaleAnswer != consul.ServFail {
		t.Errorf("zone %+v", zone)
	}
	routes := c.Routes(nil)
	if _, err := forwarder.New(forwarder.Config{Routes: routes}); err != nil {
		t.Error(err)
	}
	if len(routes) != 3 || routes[0].Suffix != wire.Root || routes[0].Mode != forwarder.Random || len(routes[2].Servers) != 2 {
		t.Errorf("routes %+v", routes)
	}
	if k := c.CacheConfig(); k.Stale >= 0 || k.MaxBytes != 1<<20 {
		t.Errorf("cache %+v", k)
	} else if _, err := cache.New(k); err != nil {
		t.Error(err)
	}
	if h := c.HostsConfig(); h.Files == nil || len(h.Records) != 1 {
		t.Errorf("hosts %+v", h)
	} else if _, err := local.NewHosts(h); err != nil {
		t.Error(err)
	}
	if h := c.HTTPConfig(); h.DefaultToken() != "t" || h.QueryTime != 5*time.Minute || h.Domain != "Example.Corp." {
		t.Errorf("HTTP %+v", h)
	}
	if r := c.ConsensusConfig(); r.Lease != time.Second || !r.Bootstrap {
		t.Errorf("Raft %+v", r)
	}
	if a := c.AgentConfig(); a.Node.Node != "host1" || a.Node.Address != "10.0.0.7" || a.CheckOutputMaxSize != 4096 {
		t.Errorf("agent %+v", a)
	} else if _, err := agent.New(a); err != nil {
		t.Error(err)
	}
	if r := c.ResolverConfig(); r.MaxTTL != 24*time.Hour || r.NegativeMaxTTL != 5*time.Minute {
		t.Errorf("resolver %+v", r)
	}
}

func TestRoutes_TakeTheHostsUpstreams(t *testing.T) {
	up := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}
	c := mustLoad(t, `listen = ["127.0.0.1:53"] forward "x" { servers = ["#"] } forward "consul" { servers = ["127.0.0.1:8600"] }`)
	if c.OwnsZone() {
		t.Error("a forward block does not take the place of the own zone")
	}
	routes := c.Routes(up)
	if len(routes) != 3 || routes[0].Servers[0] != up[0] || routes[2].Servers[0] != up[0] {
		t.Errorf("routes %+v", routes)
	}
	if got := c.Routes(nil); len(got) != 1 {
		t.Errorf("routes without servers are kept: %+v", got)
	}
	if c := mustLoad(t, `forward "." { servers = ["10.0.0.1"] mode = "all" }`); len(c.Routes(up)) != 1 || c.Routes(up)[0].Mode != forwarder.All {
		t.Errorf("routes %+v", c.Routes(up))
	}
	if !mustLoad(t, ``).OwnsZone() {
		t.Error("the own zone is nobody's")
	}
}

func TestBeginsAlone(t *testing.T) {
	for hcl, want := range map[string]bool{
		``: true, `retry_join = ["10.0.0.1"]`: false, `server = true`: false, `server = true bootstrap = true`: true,
		`server = true bootstrap_expect = 1`: true, `server = true bootstrap_expect = 3`: false,
	} {
		if got := mustLoad(t, hcl).BeginsAlone(); got != want {
			t.Errorf("%s: got %v, want %v", hcl, got, want)
		}
	}
}

// A check that is lost on the way would leave a service that looks healthy.
func TestChecks_NoneIsLost(t *testing.T) {
	c, warnings, err := load(t, `
service { name = "empty" port = 1 check {} }
service { name = "docker" port = 1 check { docker_container_id = "f972" args = ["true"] interval = "10s" } }
check { name = "box" docker_container_id = "f972" interval = "10s" }`)
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Agent.Services; len(s) != 2 || len(s[0].Checks) != 0 || len(s[1].Checks) != 1 || s[1].Checks[0].CheckType() != "docker" {
		t.Errorf("services %+v", s)
	}
	if k := c.Agent.Checks; len(k) != 1 || k[0].CheckType() != "docker" {
		t.Errorf("checks %+v", k)
	}
	said := ""
	for _, w := range warnings {
		said += w.String() + "\n"
	}
	for _, want := range []string{`a.hcl:2: key "service.check": says nothing`, `a.hcl:3: key "service.check.docker_container_id": this check will stand as critical`, `a.hcl:4: key "check.docker_container_id": this`} {
		if !strings.Contains(said, want) {
			t.Errorf("warnings lack %q:\n%s", want, said)
		}
	}
}

// TestAwaited_WhileThereIsNoAddress: what starts before its network says so, and is known by another address meanwhile.
func TestAwaited_WhileThereIsNoAddress(t *testing.T) {
	nowhere := host
	nowhere.Addresses = func() ([]netip.Addr, error) { return nil, nil }
	nowhere.Route = func(bool) netip.Addr { return netip.Addr{} }
	nowhere.Template = func(string) (string, error) { return "", nil }
	for hcl, want := range map[string]bool{
		"":                                 true,
		`bind_addr = "127.0.0.1"`:          false,
		`bind_addr = "10.0.0.7"`:           false, // it is tried until it is there
		`advertise_addr = "10.0.0.7"`:      false,
		`bind_addr = "{{ GetPrivateIP }}"`: true,
		`advertise_addr = "{{ GetInterfaceIP \"eth0\" }}"`: true,
	} {
		c, _, err := Load(Sources{Paths: []string{write(t, "a.hcl", hcl)}, Partial: true, Host: nowhere})
		if err != nil || c.Node.Awaited != want {
			t.Errorf("%s: awaited %v, %v; want %v", hcl, c != nil && c.Node.Awaited, err, want)
		}
	}
	if c := mustLoad(t, ""); c.Node.Awaited {
		t.Error("awaited, though there is an address")
	}
}
