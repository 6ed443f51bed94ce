package wire

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestParseName_RFC1035(t *testing.T) {
	for in, want := range map[string]string{
		".":                           "\x00",
		"a":                           "\x01a\x00",
		"a.":                          "\x01a\x00",
		"Web.Example.":                "\x03Web\x07Example\x00",
		`a\.b.c`:                      "\x03a.b\x01c\x00",
		`\097\\.`:                     "\x02a\\\x00",
		`\000`:                        "\x01\x00\x00",
		"_http._tcp.web.":             "\x05_http\x04_tcp\x03web\x00",
		strings.Repeat("a", 63) + ".": "\x3f" + strings.Repeat("a", 63) + "\x00",
	} {
		got, err := ParseName(in)
		if err != nil || string(got) != want {
			t.Errorf("ParseName(%q) = %q, %v; want %q", in, got, err, want)
			continue
		}
		if again, err := ParseName(got.String()); err != nil || again != got {
			t.Errorf("%q is written %q, which reads %q, %v", got, got.String(), again, err)
		}
	}
	for _, in := range []string{"", "..", ".a", "a..b", strings.Repeat("a", 64), strings.Repeat("a.", 128), `a\`, `\25`, `\256`, `\2x5`} {
		if got, err := ParseName(in); err == nil {
			t.Errorf("ParseName(%q) = %q, want an error", in, got)
		}
	}
}

func TestName_HasSuffix(t *testing.T) {
	for _, tc := range []struct {
		name, zone string
		want       bool
	}{
		{"web.service.consul.", "consul.", true}, {"web.service.CONSUL.", "Consul.", true}, {"consul.", "consul.", true},
		{"notconsul.", "consul.", false}, {"consul.", "web.consul.", false}, {"a.", ".", true}, {".", ".", true}, {".", "a.", false},
		{`a\006consul.`, "consul.", false}, // its bytes end alike, its labels do not
	} {
		if got := mustName(t, tc.name).HasSuffix(mustName(t, tc.zone)); got != tc.want {
			t.Errorf("%s below %s: %v", tc.name, tc.zone, got)
		}
	}
}

func TestName_LabelsParentChild(t *testing.T) {
	n := mustName(t, `A.b\.c.d.`)
	if diff := cmp.Diff([]string{"A", "b.c", "d"}, n.Labels()); diff != "" {
		t.Error(diff)
	}
	if same, err := FromLabels(n.Labels()...); err != nil || same != n {
		t.Errorf("FromLabels = %q, %v", same, err)
	}
	if got := n.Parent(); got != mustName(t, `b\.c.d.`) || Root.Parent() != Root {
		t.Errorf("Parent = %q", got)
	}
	if got, err := n.Parent().Child("A"); err != nil || got != n {
		t.Errorf("Child = %q, %v", got, err)
	}
	if _, err := n.Child(""); err == nil {
		t.Error("an empty label before a name")
	}
	if _, err := FromLabels("a", ""); err == nil {
		t.Error("an empty label in a name")
	}
	if n.Lower() != mustName(t, `a.b\.c.d.`) || !n.Equal(n.Lower()) {
		t.Errorf("Lower = %q", n.Lower())
	}
	for _, bad := range []Name{"", "a", "\x01", "\x01a", "\x00\x00", "\x40a\x00"} {
		if bad.IsValid() {
			t.Errorf("%q is valid", string(bad))
		}
		bad.Labels()
		_ = bad.String()
		_ = bad.Parent()
		bad.HasSuffix(Root)
	}
}

func TestTypes(t *testing.T) {
	for typ, name := range typeNames {
		if got, ok := ParseType(strings.ToLower(name)); !ok || got != typ || TypeString(typ) != name {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
		if want := dns.TypeToString[typ]; want != "" && want != name {
			t.Errorf("type %d is %s, not %s", typ, want, name)
		}
	}
	if got, ok := ParseType("TYPE65280"); !ok || got != 65280 || TypeString(got) != "TYPE65280" {
		t.Errorf("TYPE65280: %d, %v", got, ok)
	}
	for _, bad := range []string{"", "TYPE", "TYPE65536", "NOPE", "TYPE-1"} {
		if _, ok := ParseType(bad); ok {
			t.Errorf("%q is a type", bad)
		}
	}
}

func TestRdata(t *testing.T) {
	owner := mustName(t, "x.")
	n := func(s string) Name { return mustName(t, s) }
	for _, tc := range []struct {
		typ  Type
		data []byte
		want string
	}{
		{TypeA, A(netip.MustParseAddr("192.0.2.1")), "192.0.2.1"},
		{TypeA, A(netip.MustParseAddr("::ffff:192.0.2.1")), "192.0.2.1"},
		{TypeAAAA, A(netip.MustParseAddr("2001:db8::1")), "2001:db8::1"},
		{TypeSRV, SRV(1, 2, 3, n("a.b.")), "1 2 3 a.b."},
		{TypeTXT, TXT("a b", ""), `"a b" ""`},
		{TypeTXT, TXT(), `""`},
		{TypeTXT, TXT(strings.Repeat("x", 300)), `"` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`},
		{TypePTR, NameData(n("a.b.")), "a.b."},
		{TypeSOA, SOA(n("a."), n("b."), 1, 2, 3, 4, 5), "a. b. 1 2 3 4 5"},
		{TypeHINFO, HINFO("RFC8482", ""), `"RFC8482" ""`},
	} {
		q := ask(t, "x.", tc.typ, 4096)
		got := unpack(t, mustPack(t, q, &Reply{RRs: []RR{{Owner: owner, Type: tc.typ, Data: tc.data}}}).Append(nil, q, Render{}))
		if s := got.Answer[0].String(); !strings.HasSuffix(s, "\t"+tc.want) {
			t.Errorf("%s, want %s", s, tc.want)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{".", "a.b", `\000\.x.`, strings.Repeat("a.", 127)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		if again, err := ParseName(n.String()); !n.IsValid() || err != nil || again != n {
			t.Fatalf("%q reads %q, which is written %q: %v", s, n, n.String(), err)
		}
		buf := make([]byte, 300)
		if end, err := dns.PackDomainName(n.String(), buf, 0, nil, false); err == nil && string(buf[:end]) != string(n) {
			t.Errorf("%q is %q to us, %q to miekg/dns", s, n, buf[:end])
		}
	})
}

func TestUnasked(t *testing.T) {
	for name, asked := range map[string]bool{
		"nas.corp": true, "web_1._tcp.corp": true, "xn--bcher-kva.corp": true, "0/26.2.0.192.in-addr.arpa": true, "UP.corp": true, ".": true, "a$b+c.corp": true,
		"*.corp": false, "na*.corp": false, "bücher.corp": false, "http://nas.corp": false, "nas.corp:53": false, "a,b.corp": false, "/corp/": false, `a\032b.corp`: false,
	} {
		n, err := ParseName(name)
		if err != nil {
			t.Fatal(err)
		}
		if why := n.Unasked(); (why == "") != asked {
			t.Errorf("%s: %q, want asked %v", name, why, asked)
		}
	}
}
