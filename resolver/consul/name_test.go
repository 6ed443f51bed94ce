package consul

import (
	"net/netip"
	"strings"
	"testing"

	"meibo/resolver/wire"
)

// TestMetaText_RFC1464 has the vectors of Consul's TestDNS_EncodeKVasRFC1464.
func TestMetaText_RFC1464(t *testing.T) {
	for _, tc := range []struct{ key, value, want string }{
		{"color", "blue", "color=blue"},
		{"equation", "a=4", "equation=a=4"},
		{"a=a", "true", "a`=a=true"},
		{`a\=a`, "false", "a\\`=a=false"},
		{"=", `\=`, "`==\\="},
		{"string", `"Cat"`, `string="Cat"`},
		{"string2", "`abc`", "string2=``abc``"},
		{"novalue", "", "novalue="},
		{"a b", "c d", "a b=c d"},
		{"abc ", "123 ", "abc` =123 "},
		{"  abc", "123", "` ` abc=123"},
		{"ab`c", "1`2", "ab``c=1``2"},
		{" ", "x", "` =x"},
		{"rfc1035-00", "raw = `value`", "raw = `value`"},
		{"RFC1035-x", "raw", "raw"},
	} {
		if got := metaText(tc.key, tc.value); got != tc.want {
			t.Errorf("metaText(%q, %q) = %q, want %q", tc.key, tc.value, got, tc.want)
		}
	}
}

func TestTargets_NodesThatCannotBeNamedGoByTheirAddress(t *testing.T) {
	s, err := compile(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"", "a..b", ".a", "a.", strings.Repeat("x", 64), strings.Repeat("x.", 120) + "x"} {
		if n, err := s.main.nodeName(node); err == nil {
			t.Errorf("nodeName(%q) = %s, want an error", node, n)
		}
	}
	if got := s.main.addrName(netip.MustParseAddr("192.0.2.1")).String(); got != "c0000201.addr.dc1.consul." {
		t.Errorf("addrName = %s", got)
	}
}

// FuzzParse takes names apart: it never panics, letter case doesn't matter, and
// what stands in targets leads back to its node.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"consul.", "db.service.consul.", "v1.primary.db.service.dc1.consul.", "_db._tcp.consul.",
		"_db._primary.service.dc1.dc.consul.", "foo.bar.node.consul.", "7f000001.addr.dc1.consul.", "x.virtual.p.peer.consul.",
		"service.service.service.consul.", "_.consul.", "a\\.b.node.consul.", "dc1.dc.consul.", "x.TEST.", `\000.node.consul.`} {
		f.Add(s)
	}
	s, err := compile(Config{AltDomain: "\x04test\x00"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := wire.ParseName(text)
		if err != nil {
			return
		}
		d, rest := s.domainOf(name.Lower())
		if upper, _ := s.domainOf(wire.Name(strings.ToUpper(string(name))).Lower()); isASCII(text) && upper != d {
			t.Fatalf("%s: letter case decides the domain", name)
		}
		if d == nil {
			return
		}
		q := s.parse(rest.Labels())
		switch q.kind {
		case nodes:
			target, err := d.nodeName(q.name)
			if err != nil {
				return // too long with the datacenter written out
			}
			_, rest := s.domainOf(target.Lower())
			if back := s.parse(rest.Labels()); back != q {
				t.Fatalf("%s is %+v, its target %s is %+v", name, q, target, back)
			}
		case address:
			_, rest := s.domainOf(d.addrName(q.addr))
			if back := s.parse(rest.Labels()); back != q {
				t.Fatalf("%s is %+v, its target is %+v", name, q, back)
			}
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || r == '\\' })
}
