package wire

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func mustName(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ask parses a question as a client on loopback would send it; size 0 is without EDNS.
func ask(t testing.TB, name string, typ Type, size uint16) *Query {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	if size > 0 {
		m.SetEdns0(size, false)
	}
	return parseQuery(t, m)
}

func parseQuery(t testing.TB, m *dns.Msg) *Query {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := &Query{Client: netip.MustParseAddrPort("127.0.0.1:4000")}
	if v := q.Parse(msg); v != OK {
		t.Fatalf("Parse = %v", v)
	}
	return q
}

func unpack(t testing.TB, msg []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("unpack our rendering: %v\n%x", err, msg)
	}
	return m
}

func mustPack(t testing.TB, q *Query, r *Reply) *Answer {
	t.Helper()
	a, err := Pack(q, r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// addresses makes n A records of one name.
func addresses(owner Name, n int) []RR {
	rrs := make([]RR, n)
	for i := range rrs {
		rrs[i] = RR{Owner: owner, Type: TypeA, TTL: 30, Data: A(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))}
	}
	return rrs
}

// services makes n SRV records with an address each, of targets of different lengths.
func services(t testing.TB, owner Name, n int) []RR {
	var rrs []RR
	for i := range n {
		target := mustName(t, fmt.Sprintf("web-%d.node.dc1.consul.", i*i))
		rrs = append(rrs, RR{Owner: owner, Type: TypeSRV, TTL: 30, Data: SRV(1, 1, uint16(8000+i), target)})
	}
	for i := range n {
		target := mustName(t, fmt.Sprintf("web-%d.node.dc1.consul.", i*i))
		rrs = append(rrs, RR{Section: Additional, Owner: target, Type: TypeA, TTL: 30,
			Data: A(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), With: i + 1})
	}
	for i := range n {
		target := mustName(t, fmt.Sprintf("web-%d.node.dc1.consul.", i*i))
		rrs = append(rrs, RR{Section: Additional, Owner: target, Type: TypeTXT, TTL: 30, Data: TXT("rack=a1"), With: i + 1, Expendable: true})
	}
	return rrs
}

// text returns records as sorted lines.
func text(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.ToLower(rr.String()))
		}
	}
	sort.Strings(out)
	return out
}

func TestAppend_EchoesIDFlagsAndLetterCase_RFC1035_RFC4343(t *testing.T) {
	m := new(dns.Msg)
	m.SetQuestion("WeB.Service.Consul.", dns.TypeA)
	m.Id, m.CheckingDisabled = 0xabcd, true
	q := parseQuery(t, m)
	owner := mustName(t, "web.service.consul.")
	got := unpack(t, mustPack(t, q, &Reply{AA: true, RRs: addresses(owner, 2)}).Append(nil, q, Render{}))
	if got.Id != 0xabcd || !got.Response || !got.RecursionDesired || !got.RecursionAvailable || !got.CheckingDisabled ||
		!got.Authoritative || got.AuthenticatedData || got.Truncated || got.Rcode != 0 {
		t.Errorf("header %+v", got.MsgHdr)
	}
	if got.Question[0].Name != "WeB.Service.Consul." || got.Answer[1].Header().Name != "WeB.Service.Consul." {
		t.Errorf("letter case is not the client's:\n%v", got)
	}
	if got.IsEdns0() != nil {
		t.Error("an OPT to a client without EDNS (RFC 6891 section 7)")
	}
}

func TestAppend_AgesTTLs(t *testing.T) {
	q := ask(t, "web.service.consul.", TypeA, 0)
	owner := mustName(t, "web.service.consul.")
	for _, tc := range []struct {
		name string
		ttl  uint32
		r    Render
		want uint32
	}{
		{"counted down", 300, Render{Age: 100}, 200},
		{"never to 0", 30, Render{Age: 30}, 1},
		{"never below 1", 30, Render{Age: 4000}, 1},
		{"0 stays 0", 0, Render{Age: 5}, 0},
		{"untouched", 30, Render{}, 30},
		{"bounded", 300, Render{MaxTTL: 60}, 60},
		{"bounded and counted down", 300, Render{Age: 250, MaxTTL: 60}, 50},
		{"fixed", 300, Render{Age: 9, UseFixTTL: true, FixTTL: 30}, 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pick := range []uint32{0, 1 << 31} {
				rrs := addresses(owner, 3)
				for i := range rrs {
					rrs[i].TTL = tc.ttl
				}
				tc.r.Pick = pick
				for _, max := range []int{0, 2} {
					a := mustPack(t, q, &Reply{RRs: rrs, Rotate: true, MaxAnswers: max})
					for _, rr := range unpack(t, a.Append(nil, q, tc.r)).Answer {
						if rr.Header().Ttl != tc.want {
							t.Errorf("TTL %d, want %d", rr.Header().Ttl, tc.want)
						}
					}
				}
			}
		})
	}
}

func TestAppend_RotatesAndKeepsGlueWithItsTarget(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	q := ask(t, "web.service.consul.", TypeSRV, 65535)
	a := mustPack(t, q, &Reply{RRs: services(t, owner, 7), Rotate: true})
	want := unpack(t, a.Append(nil, q, Render{}))
	firsts := make(map[string]int)
	for i := range 700 {
		got := unpack(t, a.Append(nil, q, Render{Pick: uint32(i) * 6135667}))
		if diff := cmp.Diff(text(want.Answer), text(got.Answer)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(text(want.Extra), text(got.Extra)); diff != "" {
			t.Fatal(diff)
		}
		firsts[got.Answer[0].String()]++
	}
	for rr, n := range firsts {
		if n < 90 || n > 110 {
			t.Errorf("%s is first %d times of 700", rr, n)
		}
	}
	if len(firsts) != 7 {
		t.Errorf("%d different records came first, want 7", len(firsts))
	}
}

func TestAppend_CutsExpendableFirstThenSRVWithItsAddresses(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	for _, size := range []uint16{0, 600, 800, 1232, 4096} {
		for _, n := range []int{1, 3, 5, 12, 40} {
			for client := range uint32(20) {
				q := ask(t, "web.service.consul.", TypeSRV, size)
				a := mustPack(t, q, &Reply{RRs: services(t, owner, n), Rotate: true})
				msg := a.Append(nil, q, Render{Client: client, Pick: client * 214748364})
				if len(msg) > q.Limit() {
					t.Fatalf("%d bytes over the limit %d", len(msg), q.Limit())
				}
				checkServices(t, unpack(t, msg), n, size > 0)
			}
		}
	}
}

// checkServices checks that each SRV has its address and no other is there, and that TXT go before any SRV does.
func checkServices(t *testing.T, got *dns.Msg, n int, edns bool) {
	t.Helper()
	targets := make(map[string]bool)
	for _, rr := range got.Answer {
		targets[rr.(*dns.SRV).Target] = true
	}
	a, txt := 0, 0
	for _, rr := range got.Extra {
		switch rr.(type) {
		case *dns.A:
			a++
		case *dns.TXT:
			txt++
		default:
			continue
		}
		if !targets[rr.Header().Name] {
			t.Errorf("%v belongs to no SRV", rr)
		}
	}
	if a != len(got.Answer) || len(targets) != a {
		t.Errorf("%d addresses for %d SRV", a, len(got.Answer))
	}
	if cut := len(got.Answer) < n; cut != got.Truncated || cut && txt > 0 {
		t.Errorf("%d of %d SRV, %d TXT, TC %v", len(got.Answer), n, txt, got.Truncated)
	}
	if len(got.Answer) == 0 {
		t.Error("nothing left")
	}
	if (got.IsEdns0() != nil) != edns {
		t.Error("OPT lost or made up")
	}
}

func TestAppend_PolicyNeverSetsTC(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	for _, tc := range []struct {
		name  string
		reply Reply
		size  uint16
		tcp   bool
		n     int
		want  int
		tc    bool
	}{
		{"a_record_limit over UDP", Reply{MaxAnswers: 2}, 0, false, 10, 2, false},
		{"a_record_limit over TCP", Reply{MaxAnswers: 2}, 0, true, 10, 2, false},
		{"udp_answer_limit without EDNS", Reply{MaxUDP: 3}, 0, false, 10, 3, false},
		{"udp_answer_limit with EDNS of 512", Reply{MaxUDP: 3}, 512, false, 10, 3, false},
		{"udp_answer_limit not with larger EDNS", Reply{MaxUDP: 3}, 1232, false, 10, 10, false},
		{"udp_answer_limit not over TCP", Reply{MaxUDP: 3}, 0, true, 10, 10, false},
		{"the lower of both", Reply{MaxUDP: 5, MaxAnswers: 2}, 0, false, 10, 2, false},
		{"size", Reply{}, 0, false, 100, 29, true},
		{"size with enable_truncate off", Reply{NoTC: true}, 0, false, 100, 29, false},
		{"policy above what fits", Reply{MaxAnswers: 50}, 0, false, 100, 29, true},
		{"no limit", Reply{}, 0, false, 29, 29, false},
	} {
		for _, rotate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rotate %v", tc.name, rotate), func(t *testing.T) {
				q := ask(t, "web.service.consul.", TypeA, tc.size)
				q.TCP = tc.tcp
				tc.reply.RRs, tc.reply.Rotate = addresses(owner, tc.n), rotate
				got := unpack(t, mustPack(t, q, &tc.reply).Append(nil, q, Render{Client: 77}))
				if len(got.Answer) != tc.want || got.Truncated != tc.tc {
					t.Errorf("%d answers, TC %v; want %d, %v", len(got.Answer), got.Truncated, tc.want, tc.tc)
				}
			})
		}
	}
}

func TestAppend_PolicyCountsNoCNAME(t *testing.T) {
	q := ask(t, "alias.service.consul.", TypeA, 0)
	rrs := []RR{{Owner: mustName(t, "alias.service.consul."), Type: TypeCNAME, TTL: 5, Data: NameData(mustName(t, "web.example.com."))}}
	rrs = append(rrs, addresses(mustName(t, "web.example.com."), 4)...)
	a := mustPack(t, q, &Reply{RRs: rrs, MaxAnswers: 1, Rotate: true})
	seen := make(map[string]bool)
	for client := range uint32(64) {
		got := unpack(t, a.Append(nil, q, Render{Client: client}))
		if len(got.Answer) != 2 || got.Answer[0].Header().Rrtype != dns.TypeCNAME {
			t.Fatalf("%v", got)
		}
		seen[got.Answer[1].String()] = true
	}
	if len(seen) != 4 {
		t.Errorf("clients saw %d of 4 addresses", len(seen))
	}
}

func TestAppend_NothingFitsIsTC(t *testing.T) {
	q := ask(t, "big.consul.", TypeTXT, 0)
	a := mustPack(t, q, &Reply{NoTC: true, RRs: []RR{{Owner: mustName(t, "big.consul."), Type: TypeTXT, Data: TXT(strings.Repeat("x", 700))}}})
	if got := unpack(t, a.Append(nil, q, Render{})); !got.Truncated || len(got.Answer) != 0 {
		t.Errorf("an answer of which nothing fits reads as an empty one:\n%v", got)
	}
}

// chi2 returns the statistic for counts that should all be equal.
func chi2(counts map[string]int, of int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	want, sum := float64(total)/float64(of), 0.0
	for _, n := range counts {
		sum += (float64(n) - want) * (float64(n) - want) / want
	}
	return sum + float64(of-len(counts))*want
}

func TestAppend_CutSpreadsEvenlyAndSteadily(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	const n, clients = 200, 15000
	// 1 - p = 1e-6 of chi² with 199 degrees of freedom is 308. What one client gets are neighbours, not independent draws, which
	// makes the statistic larger by as many as go together; so first the first record alone is judged.
	const bar = 308
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct {
		name string
		typ  Type
		rrs  []RR
	}{
		{"A", TypeA, addresses(owner, n)},
		{"SRV of different lengths", TypeSRV, services(t, owner, n)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := ask(t, "web.service.consul.", tc.typ, 0)
			a := mustPack(t, q, &Reply{RRs: tc.rrs, Rotate: true})
			first, all, sent := make(map[string]int), make(map[string]int), 0
			buf := make([]byte, 0, 512)
			for range clients {
				r := Render{Client: rng.Uint32(), Pick: rng.Uint32()}
				got := unpack(t, a.Append(buf, q, r))
				r.Pick = rng.Uint32()
				if again := unpack(t, a.Append(buf, q, r)); !cmp.Equal(text(got.Answer), text(again.Answer)) {
					t.Fatal("one client saw two subsets")
				}
				first[got.Answer[0].String()]++
				for _, rr := range got.Answer {
					all[rr.String()]++
					sent = len(got.Answer)
				}
			}
			if x := chi2(first, n); x > bar {
				t.Errorf("first records: chi² %.0f, at most %d expected", x, bar)
			}
			if x := chi2(all, n) / float64(sent); x > bar {
				t.Errorf("all records: chi² %.0f, at most %d expected", x, bar)
			}
		})
	}
}

func TestAppend_SequentialHashesSpreadToo(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	q := ask(t, "web.service.consul.", TypeA, 0)
	a := mustPack(t, q, &Reply{RRs: addresses(owner, 200), Rotate: true})
	counts := make(map[string]int)
	for client := range uint32(15000) {
		for _, rr := range unpack(t, a.Append(nil, q, Render{Client: client})).Answer {
			counts[rr.String()]++
		}
	}
	if x := chi2(counts, 200) / 29; x > 308 {
		t.Errorf("chi² %.0f", x)
	}
}

func TestAppend_KeepsSOAOfNegatives_RFC2308(t *testing.T) {
	q := ask(t, "nowhere.service.consul.", TypeA, 0)
	soa := RR{Section: Authority, Owner: mustName(t, "consul."), Type: TypeSOA, TTL: 100,
		Data: SOA(mustName(t, "ns.consul."), mustName(t, "hostmaster.consul."), 1, 3600, 600, 86400, 7)}
	rrs := []RR{soa}
	for i := range 30 {
		rrs = append(rrs, RR{Section: Additional, Owner: mustName(t, "nowhere.service.consul."), Type: TypeTXT, Data: TXT(fmt.Sprint(i, strings.Repeat("x", 40)))})
	}
	a := mustPack(t, q, &Reply{Rcode: RcodeNXDomain, RRs: rrs, AA: true})
	if ttl, ok := a.NegativeTTL(); ttl != 7 || !ok {
		t.Errorf("NegativeTTL = %d, %v", ttl, ok)
	}
	got := unpack(t, a.Append(nil, q, Render{}))
	if len(got.Ns) != 1 || got.Ns[0].Header().Ttl != 7 || len(got.Extra) != 0 || got.Truncated || got.Rcode != dns.RcodeNameError {
		t.Errorf("%v", got)
	}
}

func TestAppend_OPTIsOurOwn_RFC6891(t *testing.T) {
	m := new(dns.Msg)
	m.SetQuestion("web.service.consul.", dns.TypeA)
	m.SetEdns0(4096, true)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option,
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
	opt.Hdr.Ttl |= 0x7f // flags that nobody knows
	q := parseQuery(t, m)
	a := mustPack(t, q, &Reply{RRs: addresses(mustName(t, "web.service.consul."), 1)})
	got := unpack(t, a.Append(nil, q, Render{EDE: EDEStale, EDEText: "old"})).IsEdns0()
	if got == nil || got.UDPSize() != 1232 || got.Version() != 0 || !got.Do() || got.Hdr.Ttl&0x7fff != 0 {
		t.Fatalf("OPT %v", got)
	}
	want := []dns.EDNS0{
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}},
		&dns.EDNS0_EDE{InfoCode: 3, ExtraText: "old"},
	}
	if fmt.Sprint(got.Option) != fmt.Sprint(want) {
		t.Errorf("options %v, want %v", got.Option, want)
	}
	if got := unpack(t, a.Append(nil, q, Render{EDE: EDEOther})).IsEdns0(); got.Option[1].(*dns.EDNS0_EDE).InfoCode != 0 {
		t.Errorf("EDEOther is sent as %v", got)
	}
}

func TestAppendError_EchoesWhatCouldBeRead(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func([]byte) []byte
		edns     bool
		verdict  Verdict
		rcode    int
		question bool
	}{
		{"trailing octets", func(b []byte) []byte { return append(b, 1) }, false, OK, dns.RcodeSuccess, true},
		{"two questions", func(b []byte) []byte { b[5] = 2; return b }, false, FormErr, dns.RcodeFormatError, false},
		{"update", func(b []byte) []byte { b[2] |= 5 << 3; return b }, false, NotImp, dns.RcodeNotImplemented, true},
		{"EDNS version 1", func(b []byte) []byte { b[len(b)-5] = 1; return b }, true, BadVers, dns.RcodeBadVers, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := new(dns.Msg)
			m.SetQuestion("Web.Example.", dns.TypeA)
			if tc.edns {
				m.SetEdns0(1232, false)
			}
			msg, _ := m.Pack()
			var q Query
			if v := q.Parse(tc.change(msg)); v != tc.verdict {
				t.Fatalf("Parse = %v, want %v", v, tc.verdict)
			}
			got := unpack(t, AppendError(nil, &q, tc.verdict.Rcode(), 0, ""))
			if got.Id != m.Id || got.Rcode != tc.rcode || (len(got.Question) == 1) != tc.question || (got.IsEdns0() != nil) != tc.edns {
				t.Errorf("%v", got)
			}
			if tc.question && got.Question[0].Name != "Web.Example." {
				t.Errorf("question %v", got.Question)
			}
		})
	}
}

func TestAppend_AllocatesNothing(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	buf := make([]byte, 0, 65535)
	for _, tc := range []struct {
		name string
		typ  Type
		size uint16
		rrs  []RR
	}{
		{"three addresses", TypeA, 1232, addresses(owner, 3)},
		{"cut addresses", TypeA, 0, addresses(owner, 200)},
		{"services", TypeSRV, 65000, services(t, owner, 30)},
		{"cut services", TypeSRV, 0, services(t, owner, 200)},
	} {
		q := ask(t, "web.service.consul.", tc.typ, tc.size)
		a := mustPack(t, q, &Reply{RRs: tc.rrs, Rotate: true})
		r := Render{Age: 3, Pick: 1 << 30, Client: 99, EDE: EDEStale, EDEText: "stale"}
		if n := testing.AllocsPerRun(100, func() { a.Append(buf, q, r) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
	q := ask(t, "web.service.consul.", TypeA, 1232)
	if n := testing.AllocsPerRun(100, func() { AppendError(buf, q, RcodeServFail, 22, "no upstream") }); n != 0 {
		t.Errorf("AppendError: %v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	owner := mustName(b, "web.service.consul.")
	buf := make([]byte, 0, 65535)
	for _, bc := range []struct {
		name string
		typ  Type
		size uint16
		rrs  []RR
	}{
		{"3A", TypeA, 1232, addresses(owner, 3)},
		{"3A,noEDNS", TypeA, 0, addresses(owner, 3)},
		{"200A,cut", TypeA, 0, addresses(owner, 200)},
		{"10SRV", TypeSRV, 4096, services(b, owner, 10)},
		{"200SRV,cut", TypeSRV, 0, services(b, owner, 200)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			q := ask(b, "web.service.consul.", bc.typ, bc.size)
			a := mustPack(b, q, &Reply{RRs: bc.rrs, Rotate: true})
			b.ReportAllocs()
			r := Render{Age: 3}
			for b.Loop() {
				r.Pick += 0x9e3779b1
				a.Append(buf, q, r)
			}
		})
	}
}
