package local_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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

// Types that a name of ours has none of are others' then, and that these deny the name
// is no data: it has an address.
func TestHosts_TypesThatAreNotThereAreAskedOfOthers(t *testing.T) {
	addr := netip.MustParseAddr
	config := local.HostsConfig{
		TypeTransparent: true,
		Records:         []string{"here.example A 192.0.2.5", "nx.here.example A 192.0.2.5", "alias.example CNAME here.example", "nas.lan A 192.0.2.6"},
		Fixed: []local.Fixed{
			{Suffix: "\x03lan\x00"},
			{Suffix: "\x02ad\x07example\x00", Addrs: []netip.Addr{addr("0.0.0.0")}, TypeTransparent: true},
			{Suffix: "\x03all\x07example\x00", Addrs: []netip.Addr{addr("192.0.2.7")}},
		},
	}
	h := hostsOf(t, config, "192.0.2.9 file.example plain\n")
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	world := resolver.Mount{Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: knows("nx."), Route: new(atomic.Uint64), Name: "default"}
	special := local.NewSpecial(local.SpecialConfig{})
	r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Whole: h, Mounts: append(append(h.Mounts(), world), special.Mounts()...)}})
	if err != nil {
		t.Fatal(err)
	}
	r.SetFilter(resolver.Filter{DomainNeeded: true})
	const said = `300 IN TXT "world"`
	for _, tc := range []struct{ name, typ, want string }{
		{"here.example.", "A", "NOERROR aa; here.example. 10 IN A 192.0.2.5"},
		{"here.example.", "ANY", "NOERROR aa; here.example. 10 IN A 192.0.2.5"},
		{"here.example.", "TXT", "NOERROR; here.example. " + said},
		{"alias.example.", "TXT", "NOERROR aa; alias.example. 10 IN CNAME here.example.; here.example. " + said},
		{"nx.here.example.", "TXT", "NOERROR; soa example."},
		{"nx.here.example.", "AAAA", "NOERROR; soa example."}, // and not denied by what was said of the other type
		{"nx.elsewhere.example.", "TXT", "NXDOMAIN; soa example."},
		{"file.example.", "TXT", "NOERROR; file.example. " + said},
		{"plain.", "AAAA", "NOERROR; soa plain."}, // domain_needed
		{"other.", "AAAA", "NXDOMAIN; soa other."},
		{"nas.lan.", "AAAA", "NOERROR aa; soa lan."},
		{"none.lan.", "AAAA", "NXDOMAIN aa; soa lan."},
		{"x.ad.example.", "A", "NOERROR aa; x.ad.example. 10 IN A 0.0.0.0"},
		{"x.ad.example.", "TXT", "NOERROR; x.ad.example. " + said},
		{"nx.ad.example.", "TXT", "NOERROR; soa example."},
		{"x.all.example.", "TXT", "NOERROR aa; soa all.example."},
		{"9.2.0.192.in-addr.arpa.", "PTR", "NOERROR aa; 9.2.0.192.in-addr.arpa. 10 IN PTR file.example."},
		{"9.2.0.192.in-addr.arpa.", "TXT", "NOERROR aa; soa 2.0.192.in-addr.arpa."},
	} {
		for range 2 {
			if got := lookup(t, r, tc.name, tc.typ); got != tc.want {
				t.Errorf("%s %s\n got %s\nwant %s", tc.name, tc.typ, got, tc.want)
			}
		}
	}
	// An address more: what was forwarded ends.
	config.Fixed[1].Addrs = append(config.Fixed[1].Addrs, addr("::"))
	lookup(t, r, "x.ad.example.", "AAAA")
	config.Files = []string{}
	if err := h.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	if got, want := lookup(t, r, "x.ad.example.", "AAAA"), "NOERROR aa; x.ad.example. 10 IN AAAA ::"; got != want {
		t.Errorf("after the change\n got %s\nwant %s", got, want)
	}
}

// Who leaves its types to others, or no longer, changes the answers of all its names.
func TestHosts_SetConfigTellsAllNamesWhereTypesWereLeftToOthers(t *testing.T) {
	var told []string
	config := local.HostsConfig{Files: []string{}, Records: []string{"a.home A 192.0.2.7", "b.home A 192.0.2.8"}, Changed: func(names []wire.Name) {
		told = nil
		for _, n := range names {
			told = append(told, n.String())
		}
	}}
	h, err := local.NewHosts(config)
	if err != nil {
		t.Fatal(err)
	}
	told = nil
	config.TypeTransparent = true
	if err := h.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.home.", "b.home."} {
		if !slices.Contains(told, name) {
			t.Errorf("told %v, and not %s", told, name)
		}
	}
}

// knows is an upstream that knows every name but those that begin so, each by one TXT
// record.
type knows string

func (k knows) Exchange(_ context.Context, q *wire.Query) (resolver.Result, error) {
	name := wire.Name(q.Name())
	reply := &wire.Reply{RRs: []wire.RR{{Owner: name, Type: wire.TypeTXT, TTL: 300, Data: wire.TXT("world")}}}
	if unknown := strings.HasPrefix(name.String(), string(k)); unknown || q.Type != wire.TypeTXT {
		const zone = wire.Name("\x07example\x00")
		reply.RRs = []wire.RR{{Section: wire.Authority, Owner: zone, Type: wire.TypeSOA, TTL: 300, Data: wire.SOA(zone, zone, 1, 3600, 1200, 604800, 300)}}
		if unknown {
			reply.Rcode = wire.RcodeNXDomain
		}
	}
	a, err := wire.Pack(q, reply)
	return resolver.Result{Answer: a, Ages: true, Source: "world"}, err
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
