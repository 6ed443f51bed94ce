package consul_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestNew_RefusesWhatCannotBe(t *testing.T) {
	label := func(n int) wire.Name { return wire.Name(string(rune(n)) + strings.Repeat("x", n)) }
	long := label(60) + label(60) + label(60) + label(30) + "\x00"
	for _, tc := range []struct {
		name   string
		config consul.Config
		want   string
	}{
		{"the root as domain", consul.Config{Domain: "\x00"}, "root"},
		{"a domain that leaves no room", consul.Config{Domain: long}, "too long"},
		{"a datacenter of two labels", consul.Config{Datacenter: "a.b"}, "one DNS label"},
		{"alt_domain that begins with a kind", consul.Config{AltDomain: "\x07service\x03foo\x00"}, "alt_domain"},
		{"alt_domain that begins with the datacenter", consul.Config{AltDomain: "\x03dc1\x06consul\x00"}, "alt_domain"},
		{"a negative TTL", consul.Config{NodeTTL: -time.Second}, "node_ttl"},
		{"a TTL beyond RFC 2181", consul.Config{ServiceTTL: map[string]time.Duration{"web": 1 << 31 * time.Second}}, "service_ttl web"},
		{"a negative limit", consul.Config{ARecordLimit: -1}, "a_record_limit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := consul.New(consul.Options{Config: tc.config, State: newFake().State, Want: newFake().Want, Moved: func() {}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one about %q", err, tc.want)
			}
		})
	}
	if _, err := consul.New(consul.Options{}); err == nil {
		t.Error("a zone without a source was made")
	}
}

func TestSetConfig_KeepsTheOldOneWhenTheNewIsWrong(t *testing.T) {
	moved := 0
	zone, err := consul.New(consul.Options{State: newFake().State, Want: newFake().Want, Moved: func() { moved++ }})
	if err != nil {
		t.Fatal(err)
	}
	if err := zone.SetConfig(consul.Config{NodeTTL: -1}); err == nil || moved != 0 {
		t.Errorf("error %v, moved %d; want an error and nothing moved", err, moved)
	}
	if err := zone.SetConfig(consul.Config{NodeTTL: time.Second}); err != nil || moved != 1 {
		t.Errorf("error %v, moved %d; want the epoch moved once", err, moved)
	}
}

func TestMounts_TheDomainsAndTheReverseZones(t *testing.T) {
	zone, err := consul.New(consul.Options{Config: consul.Config{AltDomain: "\x04Test\x00"}, State: newFake().State, Want: newFake().Want, Moved: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range zone.Mounts("\x0210\x07in-addr\x04arpa\x00") {
		if m.Rank != resolver.RankOwn || m.Zone == nil {
			t.Errorf("mount %v", m)
		}
		got = append(got, m.Suffix.String())
	}
	if want := "consul. test. in-addr.arpa. ip6.arpa. 10.in-addr.arpa."; strings.Join(got, " ") != want {
		t.Errorf("mounts %v, want %s", got, want)
	}
}

func TestAnswer_NotMineOutsideTheDomains(t *testing.T) {
	zone, err := consul.New(consul.Options{State: newFake().State, Want: newFake().Want, Moved: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "example.com.", "xconsul.", "consul.example."} {
		if _, outcome := zone.Answer(question(t, name, wire.TypeA)); outcome != resolver.NotMine {
			t.Errorf("%s: outcome %v, want NotMine", name, outcome)
		}
	}
}

func TestExcluded_TheFirstCheckThatKeepsAnInstanceOut(t *testing.T) {
	checks := func(status ...string) (in catalog.Instance) {
		for _, s := range status {
			in.Checks = append(in.Checks, &catalog.Check{CheckID: s, Status: s})
		}
		return in
	}
	for _, tc := range []struct {
		in          catalog.Instance
		onlyPassing bool
		want        string
	}{
		{checks(), false, ""},
		{checks("passing", "warning"), false, ""},
		{checks("passing", "warning", "critical"), false, "critical"},
		{checks("passing", "warning", "critical"), true, "warning"},
		{checks("passing"), true, ""},
	} {
		got := ""
		if c := consul.Excluded(tc.in, tc.onlyPassing, false); c != nil {
			got = c.CheckID
		}
		if got != tc.want {
			t.Errorf("Excluded(%v, %v) = %q, want %q", tc.in.Status(), tc.onlyPassing, got, tc.want)
		}
	}
}
