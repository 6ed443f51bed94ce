package local_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"meibo/resolver"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

// askSpecial puts a question to the special zone with the longest suffix.
func askSpecial(t *testing.T, s *local.Special, name, typ string) string {
	t.Helper()
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	var best *resolver.Mount
	for _, m := range s.Mounts() {
		if n.HasSuffix(m.Suffix) && (best == nil || len(m.Suffix) > len(best.Suffix)) {
			best = &m
		}
	}
	if best == nil {
		return "no mount"
	}
	return ask(t, best.Zone, name, typ)
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestSpecial_NamesOfTheIANARegistry(t *testing.T) {
	s := local.NewSpecial(local.SpecialConfig{Upstreams: addrs("9.9.9.9")})
	for _, tc := range []struct{ rfc, name, typ, want string }{
		{"6761 6.3", "localhost.", "A", "NOERROR; localhost. 10800 IN A 127.0.0.1"},
		{"6761 6.3", "a.b.localhost.", "AAAA", "NOERROR; a.b.localhost. 10800 IN AAAA ::1"},
		{"6761 6.3", "localhost.", "MX", "NOERROR; soa localhost. 10800 10800"},
		{"6761 6.3", "localhost.example.com.", "A", "no mount"},
		{"6761 6.4", "x.invalid.", "A", "NXDOMAIN; soa invalid. 10800 10800"},
		{"6761 6.2", "test.", "A", "NXDOMAIN; soa test. 10800 10800"},
		{"6761 6.5", "example.", "A", "no mount"},
		{"6762 22", "printer.local.", "A", "NXDOMAIN; soa local. 10800 10800"},
		{"7686", "x.onion.", "A", "NXDOMAIN; soa onion. 10800 10800"},
		{"8375", "nas.home.arpa.", "A", "NXDOMAIN; soa home.arpa. 10800 10800"},
		{"8375", "home.arpa.", "A", "NOERROR; soa home.arpa. 10800 10800"},
		{"9462", "_dns.resolver.arpa.", "SVCB", "NXDOMAIN; soa resolver.arpa. 10800 10800"},
		{"9665", "default.service.arpa.", "NS", "NXDOMAIN; soa service.arpa. 10800 10800"},
		{"8880", "ipv4only.arpa.", "AAAA", "no mount"},
		{"9476", "x.alt.", "A", "no mount"},
		{"6303", "1.0.0.127.in-addr.arpa.", "PTR", "NOERROR; 1.0.0.127.in-addr.arpa. 10800 IN PTR localhost."},
		{"6303", "1.0.0.127.in-addr.arpa.", "A", "NOERROR; soa 127.in-addr.arpa. 10800 10800"},
		{"8020", "0.0.127.in-addr.arpa.", "A", "NOERROR; soa 127.in-addr.arpa. 10800 10800"},
		{"6303", "2.0.0.127.in-addr.arpa.", "PTR", "NXDOMAIN; soa 127.in-addr.arpa. 10800 10800"},
		{"6303", "10.in-addr.arpa.", "NS", "NOERROR; 10.in-addr.arpa. 10800 IN NS 10.in-addr.arpa."},
		{"6303", "1.2.3.10.in-addr.arpa.", "PTR", "NXDOMAIN; soa 10.in-addr.arpa. 10800 10800"},
		{"6303", "1.1.31.172.in-addr.arpa.", "PTR", "NXDOMAIN; soa 31.172.in-addr.arpa. 10800 10800"},
		{"6303", "1.1.32.172.in-addr.arpa.", "PTR", "no mount"},
		{"7793", "1.1.64.100.in-addr.arpa.", "PTR", "NXDOMAIN; soa 64.100.in-addr.arpa. 10800 10800"},
		{"7793", "1.1.128.100.in-addr.arpa.", "PTR", "no mount"},
		{"6303", wire.ReverseName(netip.IPv6Loopback()).String(), "PTR", "NOERROR; " + wire.ReverseName(netip.IPv6Loopback()).String() + " 10800 IN PTR localhost."},
		{"6303", wire.ReverseName(netip.MustParseAddr("fd00::1")).String(), "PTR", "NXDOMAIN; soa d.f.ip6.arpa. 10800 10800"},
	} {
		if got := askSpecial(t, s, tc.name, tc.typ); got != tc.want {
			t.Errorf("RFC %s: %s %s\n got %s\nwant %s", tc.rfc, tc.name, tc.typ, got, tc.want)
		}
	}
	if got := askSpecial(t, s, "10.in-addr.arpa.", "SOA"); !strings.HasPrefix(got, "NOERROR; 10.in-addr.arpa. 10800 IN SOA") {
		t.Errorf("SOA of a reverse zone: %s", got)
	}
}

func TestSpecial_BogusPriv(t *testing.T) {
	const name = "1.2.3.10.in-addr.arpa."
	const denied = "NXDOMAIN; soa 10.in-addr.arpa. 10800 10800"
	for _, tc := range []struct {
		name   string
		config local.SpecialConfig
		want   string
	}{
		{"all upstreams public", local.SpecialConfig{Upstreams: addrs("9.9.9.9", "2620:fe::fe")}, denied},
		{"no upstream", local.SpecialConfig{}, denied},
		{"one private upstream", local.SpecialConfig{Upstreams: addrs("9.9.9.9", "10.0.0.1")}, "not mine"},
		{"a ULA upstream", local.SpecialConfig{Upstreams: addrs("fd00::53")}, "not mine"},
		{"a shared-space upstream", local.SpecialConfig{Upstreams: addrs("100.64.0.1")}, "not mine"},
		{"another resolver on this host", local.SpecialConfig{Upstreams: addrs("127.0.0.53")}, "not mine"},
		{"on", local.SpecialConfig{BogusPriv: local.BogusPrivOn, Upstreams: addrs("10.0.0.1")}, denied},
		{"off", local.SpecialConfig{BogusPriv: local.BogusPrivOff, Upstreams: addrs("9.9.9.9")}, "not mine"},
		{"a route above", local.SpecialConfig{Routes: []wire.Name{"\x07in-addr\x04arpa\x00"}}, "not mine"},
		{"a route elsewhere and the default route", local.SpecialConfig{Routes: []wire.Name{"\x04corp\x00", wire.Root}}, denied},
	} {
		if got := askSpecial(t, local.NewSpecial(tc.config), name, "PTR"); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
	reverse := local.NewSpecial(local.SpecialConfig{BogusPriv: local.BogusPrivReverse, Upstreams: addrs("10.0.0.1")})
	for _, tc := range []struct{ name, typ, want string }{
		{name, "PTR", denied},
		{name, "TXT", "not mine"},
		{"10.in-addr.arpa.", "SOA", "not mine"},
		{"1.2.0.192.in-addr.arpa.", "PTR", "NXDOMAIN; soa 2.0.192.in-addr.arpa. 10800 10800"},
		{wire.ReverseName(netip.MustParseAddr("fd00::1")).String(), "PTR", "NXDOMAIN; soa d.f.ip6.arpa. 10800 10800"},
		{"1.1.64.100.in-addr.arpa.", "PTR", "not mine"},
		{"printer.local.", "A", "not mine"},
		{"a.test.", "A", "not mine"},
		{"nas.home.arpa.", "PTR", "not mine"},
		{"localhost.", "A", "NOERROR; localhost. 10800 IN A 127.0.0.1"},
	} {
		if got := askSpecial(t, reverse, tc.name, tc.typ); got != tc.want {
			t.Errorf("reverse: %s %s: got %s, want %s", tc.name, tc.typ, got, tc.want)
		}
	}
	s := local.NewSpecial(local.SpecialConfig{BogusPriv: local.BogusPrivOff, Upstreams: addrs("10.0.0.1")})
	if got := askSpecial(t, s, "1.0.0.127.in-addr.arpa.", "PTR"); !strings.Contains(got, "localhost.") {
		t.Errorf("this host's own address is forwarded: %s", got)
	}
}

func TestSpecial_AConfigurationChangeDropsWhatWasAnswered(t *testing.T) {
	s := local.NewSpecial(local.SpecialConfig{})
	m := s.Mounts()[slices.IndexFunc(s.Mounts(), func(m resolver.Mount) bool { return m.Suffix.String() == "10.in-addr.arpa." })]
	n, err := wire.ParseName("1.2.3.10.in-addr.arpa.")
	if err != nil {
		t.Fatal(err)
	}
	q := wire.NewQuery(n, wire.TypePTR)
	r, outcome := m.Zone.Answer(q)
	if outcome != resolver.Answered || r.Deps[0].Moved() {
		t.Fatalf("outcome %v, moved %v", outcome, r.Deps[0].Moved())
	}
	s.SetConfig(local.SpecialConfig{Upstreams: addrs("10.0.0.1")})
	if !r.Deps[0].Moved() {
		t.Error("the denial still counts")
	}
	if _, outcome := m.Zone.Answer(q); outcome != resolver.NotMine {
		t.Errorf("outcome %v, want NotMine", outcome)
	}
}

func TestReverseZones_AreThoseTheCatalogMustBeAskedBefore(t *testing.T) {
	zones := local.ReverseZones()
	for _, want := range []string{"10.in-addr.arpa.", "127.in-addr.arpa.", "d.f.ip6.arpa."} {
		if !slices.ContainsFunc(zones, func(n wire.Name) bool { return n.String() == want }) {
			t.Errorf("%s is missing", want)
		}
	}
	if slices.ContainsFunc(zones, func(n wire.Name) bool { return n.String() == "home.arpa." }) {
		t.Error("home.arpa. is no reverse zone")
	}
}

// Names of companies and homes are forwarded to where they can be known, and nowhere else.
func TestSpecial_NamesOfPrivateNetworks_RFC6762_RFC6761_RFC8375(t *testing.T) {
	for _, name := range []string{"x.corp.local.", "local.", "x.test.", "nas.home.arpa.", "1.0.0.10.in-addr.arpa."} {
		for _, tc := range []struct {
			config local.SpecialConfig
			mine   bool
		}{
			{local.SpecialConfig{Upstreams: addrs("9.9.9.9")}, true},
			{local.SpecialConfig{}, true},
			{local.SpecialConfig{Upstreams: addrs("192.168.1.1")}, false},
			{local.SpecialConfig{Upstreams: addrs("127.0.0.53")}, false},
			{local.SpecialConfig{Upstreams: addrs("9.9.9.9", "10.0.0.2")}, false},
		} {
			if got := askSpecial(t, local.NewSpecial(tc.config), name, "A"); (got != "not mine") != tc.mine {
				t.Errorf("%s with %v: %s", name, tc.config.Upstreams, got)
			}
		}
	}
	for _, name := range []string{"x.onion.", "x.invalid.", "x.localhost.", "x.resolver.arpa."} {
		if got := askSpecial(t, local.NewSpecial(local.SpecialConfig{Upstreams: addrs("10.0.0.2")}), name, "A"); got == "not mine" {
			t.Errorf("%s leaves the host", name)
		}
	}
}
