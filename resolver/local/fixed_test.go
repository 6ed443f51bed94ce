package local_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

// resolverOf answers from h alone, as a host's resolver would.
func resolverOf(t *testing.T, h *local.Hosts) *resolver.Resolver {
	t.Helper()
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Whole: h, Mounts: h.Mounts()}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lookup puts a question to a resolver and writes the answer as text.
func lookup(t *testing.T, r *resolver.Resolver, name, typ string) string {
	t.Helper()
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.NewQuery(n, dns.StringToType[typ])
	res, err := r.Lookup(context.Background(), q)
	if err != nil {
		return err.Error()
	}
	m := new(dns.Msg)
	if err := m.Unpack(res.Answer.Append(nil, q, wire.Render{})); err != nil {
		t.Fatal(err)
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		out[0] += " aa"
	}
	for _, rr := range m.Answer {
		out = append(out, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	for _, rr := range m.Ns {
		out = append(out, "soa "+rr.Header().Name)
	}
	return strings.Join(out, "; ")
}

func TestHosts_AliasesAreFollowed_RFC1034_3_6_2(t *testing.T) {
	h := hostsOf(t, local.HostsConfig{Records: []string{
		"www.lan CNAME web.lan", "web.lan 60 CNAME db.example.com", "loop.lan CNAME pool.lan", "pool.lan CNAME loop.lan",
		"dead.lan CNAME ads.corp", "out.lan CNAME elsewhere.test",
	}, Fixed: []local.Fixed{{Suffix: "\x04corp\x00"}}}, sample)
	r := resolverOf(t, h)
	for _, tc := range []struct{ name, typ, want string }{
		{"www.lan.", "A", "NOERROR aa; www.lan. 10 IN CNAME web.lan.; web.lan. 60 IN CNAME db.example.com.; db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2"},
		{"WWW.lan.", "CNAME", "NOERROR aa; WWW.lan. 10 IN CNAME web.lan."},
		{"web.lan.", "MX", "NOERROR aa; web.lan. 60 IN CNAME db.example.com.; soa db.example.com."},
		{"dead.lan.", "A", "NXDOMAIN aa; dead.lan. 10 IN CNAME ads.corp.; soa corp."}, // RFC 6604: the code is the end's
		{"loop.lan.", "A", "aliases lead back to loop.lan."},
		{"out.lan.", "A", "no zone or route for this name"},
	} {
		for _, again := range []string{"", " again"} {
			got := lookup(t, r, tc.name, tc.typ)
			if strings.Contains(tc.want, "NOERROR") || strings.Contains(tc.want, "NX") {
				if strings.Contains(got, "192.0.2.2; ") { // the set is rotated
					got = strings.Replace(got, "db.example.com. 10 IN A 192.0.2.2; db.example.com. 10 IN A 192.0.2.1", "db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2", 1)
				}
				if got != tc.want {
					t.Errorf("%s %s%s\n got %s\nwant %s", tc.name, tc.typ, again, got, tc.want)
				}
			} else if !strings.Contains(got, tc.want) {
				t.Errorf("%s %s%s: %s, want an error that says %q", tc.name, tc.typ, again, got, tc.want)
			}
		}
	}
	// What an alias leads to changes: so does the answer.
	if err := h.SetConfig(local.HostsConfig{Files: []string{}, Records: []string{"www.lan CNAME web.lan", "web.lan A 192.0.2.77"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := lookup(t, r, "www.lan.", "A"), "NOERROR aa; www.lan. 10 IN CNAME web.lan.; web.lan. 10 IN A 192.0.2.77"; got != want {
		t.Errorf("after the change\n got %s\nwant %s", got, want)
	}
}

func TestHosts_AnAliasStandsAlone_RFC2181_10_1(t *testing.T) {
	_, err := local.NewHosts(local.HostsConfig{Files: []string{}, Records: []string{"a.lan CNAME b.lan", "A.lan TXT x"}})
	if err == nil || !strings.Contains(err.Error(), "hosts.records") || !strings.Contains(err.Error(), "stands alone") {
		t.Errorf("error %v, want one that says a CNAME stands alone", err)
	}
	// A file's addresses are the operator's word of the day: they count.
	h := hostsOf(t, local.HostsConfig{Records: []string{"db.example.com CNAME other.lan"}}, sample)
	if got, want := ask(t, h, "six.", "AAAA"), "NOERROR; six. 10 IN AAAA 2001:db8::1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := ask(t, h, "db.example.com.", "A"), "NOERROR; db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHosts_FixedDomains(t *testing.T) {
	addr := netip.MustParseAddr
	h := hostsOf(t, local.HostsConfig{
		Records: []string{"deep.host.lan A 192.0.2.5", "x.dev.corp TXT here"},
		Fixed: []local.Fixed{
			{Suffix: "\x03lan\x00"},
			{Suffix: "\x03dev\x04corp\x00", Addrs: []netip.Addr{addr("10.7.0.1")}},
			{Suffix: "\x03ads\x00", Addrs: []netip.Addr{addr("0.0.0.0"), addr("::")}},
		},
	}, "192.0.2.9 nas.lan\n")
	r := resolverOf(t, h)
	for _, tc := range []struct{ name, typ, want string }{
		{"nas.lan.", "A", "NOERROR aa; nas.lan. 10 IN A 192.0.2.9"},
		{"nas.lan.", "AAAA", "NOERROR aa; soa nas.lan."},
		{"none.lan.", "A", "NXDOMAIN aa; soa lan."},
		{"below.nas.lan.", "A", "NXDOMAIN aa; soa lan."},
		{"host.lan.", "A", "NOERROR aa; soa lan."}, // it leads to a name (RFC 8020 section 2)
		{"lan.", "A", "NOERROR aa; soa lan."},
		{"dev.corp.", "A", "NOERROR aa; dev.corp. 10 IN A 10.7.0.1"},
		{"a.b.dev.corp.", "A", "NOERROR aa; a.b.dev.corp. 10 IN A 10.7.0.1"},
		{"a.dev.corp.", "AAAA", "NOERROR aa; soa dev.corp."},
		{"x.dev.corp.", "TXT", `NOERROR aa; x.dev.corp. 10 IN TXT "here"`},
		{"x.ads.", "AAAA", "NOERROR aa; x.ads. 10 IN AAAA ::"},
	} {
		if got := lookup(t, r, tc.name, tc.typ); got != tc.want {
			t.Errorf("%s %s\n got %s\nwant %s", tc.name, tc.typ, got, tc.want)
		}
	}
	if _, err := local.NewHosts(local.HostsConfig{Fixed: []local.Fixed{{Suffix: "\x03lan\x00"}, {Suffix: "\x03lan\x00"}}}); err == nil {
		t.Error("a domain that is fixed twice was taken")
	}
}

func TestHosts_DomainTTLAndDirectories(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b": "192.0.2.2 two\n", "a": "192.0.2.1 one two.example.com\n", ".c": "192.0.2.3 three\n", "d~": "192.0.2.3 three\n", "#e#": "192.0.2.3 three\n",
	} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := local.NewHosts(local.HostsConfig{Files: []string{dir}, Domain: "\x03Lan\x00", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, typ, want string }{
		{"one.", "A", "NOERROR; one. 60 IN A 192.0.2.1"},
		{"one.lan.", "A", "NOERROR; one.lan. 60 IN A 192.0.2.1"},
		{"1.2.0.192.in-addr.arpa.", "PTR", "NOERROR; 1.2.0.192.in-addr.arpa. 60 IN PTR one.Lan."},
		{"two.lan.", "A", "NOERROR; two.lan. 60 IN A 192.0.2.2"},
		{"two.example.com.", "A", "NOERROR; two.example.com. 60 IN A 192.0.2.1"},
		{"two.example.com.lan.", "A", "not mine"},
		{"three.", "A", "not mine"},
	} {
		if got := ask(t, h, tc.name, tc.typ); got != tc.want {
			t.Errorf("%s %s\n got %s\nwant %s", tc.name, tc.typ, got, tc.want)
		}
	}
	writeFile(t, filepath.Join(dir, "new"), "192.0.2.3 three\n")
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, h, "three.lan.", "A"), "NOERROR; three.lan. 60 IN A 192.0.2.3"; got != want {
		t.Errorf("a file that came: got %s, want %s", got, want)
	}
}
