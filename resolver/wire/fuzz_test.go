package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// replies are responses as servers send them, packed; the seeds of the fuzz targets.
func replies(t testing.TB) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for name, rrs := range map[string][]string{
		"A":      {"www.example.com. 300 IN A 192.0.2.1", "www.example.com. 200 IN A 192.0.2.2", "www.example.com. 300 IN A 192.0.2.3"},
		"CNAME":  {"www.example.com. 300 IN CNAME a.example.net.", "a.example.net. 60 IN A 192.0.2.1", "a.example.net. 60 IN A 192.0.2.9"},
		"AAAA":   {"www.example.com. 300 IN AAAA 2001:db8::1"},
		"MX":     {"www.example.com. 300 IN MX 10 mail.example.com.", "www.example.com. 300 IN MX 20 mail2.example.com.", "+mail.example.com. 30 IN A 192.0.2.7"},
		"SRV":    {"www.example.com. 30 IN SRV 1 1 80 a.example.com.", "www.example.com. 30 IN SRV 1 1 80 b.example.com.", "+a.example.com. 30 IN A 192.0.2.7"},
		"SOA":    {"!example.com. 3600 IN SOA ns.example.com. host.example.com. 1 2 3 4 60"},
		"TXT":    {`www.example.com. 1 IN TXT "v=spf1" "-all"`, `www.example.com. 1 IN TXT "x"`},
		"HTTPS":  {`www.example.com. 1 IN HTTPS 1 svc.example.com. alpn="h2,h3" ipv4hint=192.0.2.1`},
		"NAPTR":  {`www.example.com. 1 IN NAPTR 1 1 "s" "SIP+D2U" "" _sip._udp.example.com.`},
		"DNSSEC": {"www.example.com. 300 IN A 192.0.2.1", "www.example.com. 250 IN RRSIG A 8 2 300 20300101000000 20200101000000 1 example.com. aaaa", "!a.example.com. 60 IN NSEC b.example.com. A"},
		"ODD":    {`www.example.com. 300 IN TYPE65280 \# 3 010203`, "www.example.com. 300 IN HINFO a b", "www.example.com. 9 IN RP a.example.com. b.example.com.", "www.example.com. 9 IN PX 1 a.example.com. b.example.com."},
		"DNAME":  {"example.com. 300 IN DNAME example.net.", "www.example.com. 0 IN CNAME www.example.net.", "www.example.net. 30 IN A 192.0.2.1"},
		"NS":     {"!example.com. 30 IN NS ns1.example.com.", "!example.com. 30 IN NS ns2.example.com.", "+ns1.example.com. 30 IN A 192.0.2.1"},
		"none":   nil,
	} {
		m := new(dns.Msg)
		qtype, ok := dns.StringToType[name]
		if !ok {
			qtype = dns.TypeA
		}
		m.SetQuestion("www.example.com.", qtype)
		m.Response, m.RecursionAvailable, m.Compress = true, true, true
		for _, s := range rrs {
			section := &m.Answer
			switch s[0] {
			case '!':
				section, s = &m.Ns, s[1:]
			case '+':
				section, s = &m.Extra, s[1:]
			}
			rr, err := dns.NewRR(s)
			if err != nil {
				t.Fatal(err)
			}
			*section = append(*section, rr)
		}
		out[name] = mustMiekgPack(t, m)
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: 22, ExtraText: "none reachable"})
		out[name+",OPT"] = mustMiekgPack(t, m)
		if n := len(m.Extra); n > 1 {
			m.Extra[0], m.Extra[n-1] = m.Extra[n-1], m.Extra[0]
			m.Extra = append(m.Extra, dns.Copy(m.Extra[1])) // its owner points beyond the OPT
			out[name+",OPT first"] = mustMiekgPack(t, m)
		}
	}
	return out
}

func mustMiekgPack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// question returns a query for the question of a response, as one who takes 64 KB.
func question(a *Answer) *Query {
	msg := append(make([]byte, 0, a.end()), a.msg[:a.end()]...)
	copy(msg[2:], make([]byte, headerSize-2))
	if a.end() > headerSize {
		msg[5] = 1
	}
	q := &Query{TCP: true, Client: netip.MustParseAddrPort("127.0.0.1:53")}
	q.Parse(msg)
	return q
}

// plain returns the records of a message as lines, without OPT and TTLs, and how often each is there.
func plain(m *dns.Msg) map[string]int {
	out := make(map[string]int)
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			rr.Header().Ttl = 0
			out[string(rune('0'+i))+" "+strings.ToLower(rr.String())]++
		}
	}
	return out
}

func FuzzParseQuery(f *testing.F) {
	for _, name := range []string{"www.example.com.", ".", "Web.Service.Consul.", `a\.b\000.example.`} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeAAAA)
		f.Add(mustMiekgPack(f, m))
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option,
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 56, Address: netip.MustParseAddr("2001:db8::").AsSlice()})
		f.Add(mustMiekgPack(f, m))
		m.Opcode = dns.OpcodeNotify
		f.Add(mustMiekgPack(f, m))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		var q Query
		v := q.Parse(msg)
		if v == Drop {
			return
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(AppendError(nil, &q, v.Rcode(), 0, "")); err != nil || reply.Id != q.ID || !reply.Response {
			t.Fatalf("reply %v: %v", err, reply)
		}
		m := new(dns.Msg)
		if m.Unpack(msg) != nil {
			return
		}
		switch v {
		case OK, BadVers:
			compareQuery(t, &q, m)
		case FormErr:
			again, err := m.Pack()
			if err != nil || !isFineQuery(m) {
				return
			}
			if v := q.Parse(again); v == FormErr {
				t.Errorf("%v is refused: %x", m, again)
			}
		}
	})
}

func compareQuery(t *testing.T, q *Query, m *dns.Msg) {
	name, _, err := dns.UnpackDomainName(q.Name(), 0)
	if err != nil || len(m.Question) != 1 || !strings.EqualFold(name, m.Question[0].Name) {
		t.Fatalf("name %q, want %v", name, m.Question)
	}
	if q.Type != m.Question[0].Qtype || q.Class != m.Question[0].Qclass || q.ID != m.Id || q.RD != m.RecursionDesired ||
		q.CD != m.CheckingDisabled || q.AD != m.AuthenticatedData {
		t.Errorf("%+v, want %v", q, m)
	}
	opt := m.IsEdns0()
	if (opt != nil) != q.EDNS || opt != nil && (opt.UDPSize() != q.UDPSize || opt.Do() != q.DO || opt.Version() != q.Version) {
		t.Errorf("%+v, want %v", q, opt)
	}
}

// isFineQuery reports whether there is one question and at most one OPT, owned by the root and in its place.
func isFineQuery(m *dns.Msg) bool {
	for _, rr := range append(m.Answer, m.Ns...) {
		if rr.Header().Rrtype == dns.TypeOPT {
			return false
		}
	}
	opts := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
			if rr.Header().Name != "." {
				return false
			}
		}
	}
	return len(m.Question) == 1 && opts < 2
}

func FuzzParseAnswer(f *testing.F) {
	for _, msg := range replies(f) {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := ParseAnswer(msg)
		want := new(dns.Msg)
		oracle := want.Unpack(msg)
		if err != nil {
			checkRefusal(t, err, want, oracle)
			return
		}
		q := question(a)
		a.RRs()
		whole, small := new(dns.Msg), new(dns.Msg)
		err = whole.Unpack(a.Append(nil, q, Render{Pick: 1 << 31}))
		q.TCP = false
		cut := a.Append(nil, q, Render{Age: 7, Client: 5})
		if len(cut) > minUDP {
			t.Errorf("%d bytes", len(cut))
		}
		if oracle != nil {
			return
		}
		if err != nil {
			t.Fatalf("rendering: %v", err)
		}
		if err := small.Unpack(cut); err != nil {
			t.Fatalf("cut rendering: %v", err)
		}
		all := plain(want)
		if diff := cmp.Diff(all, plain(whole)); diff != "" {
			t.Error(diff)
		}
		for rr, n := range plain(small) {
			if all[rr] < n {
				t.Errorf("%s is not in the answer", rr)
			}
		}
	})
}

// checkRefusal fails when a message that miekg/dns reads, and packs again, is refused still.
func checkRefusal(t *testing.T, refusal error, m *dns.Msg, oracle error) {
	if oracle != nil || !m.Response || m.Opcode != 0 || !isFineQuery(m) {
		return
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			// Rdata that ends early is zero values to miekg/dns (which is fine in updates only), and no rdata of its type to us.
			if s := rr.String(); rr.Header().Rdlength == 0 || s != strings.TrimSpace(s) || strings.Contains(s, "  ") {
				return
			}
		}
	}
	m.Compress = true
	msg, err := m.Pack()
	if err != nil || len(msg) > maxMessage {
		return
	}
	if _, err := ParseAnswer(msg); err != nil {
		t.Errorf("refused (%v; at first %v):\n%v\n%x", err, refusal, m, msg)
	}
}

func FuzzAppend(f *testing.F) {
	for _, msg := range replies(f) {
		f.Add(msg, uint16(0), uint32(1), uint32(1<<31), uint32(3), byte(0))
		f.Add(msg, uint16(4096), uint32(1<<30), uint32(7), uint32(0), byte(0xff))
	}
	f.Fuzz(func(t *testing.T, msg []byte, size uint16, client, pick, age uint32, flags byte) {
		parsed, err := ParseAnswer(msg)
		m := new(dns.Msg)
		if err != nil || parsed.end() == headerSize || m.Unpack(msg) != nil || !isOneClass(m) {
			return
		}
		q := question(parsed)
		q.TCP, q.EDNS, q.UDPSize = flags&1 != 0, size > 0, size
		r := &Reply{Rcode: parsed.rcode & 15, RRs: parsed.RRs(), Rotate: flags&2 != 0, NoTC: flags&4 != 0,
			MaxAnswers: int(flags >> 6), MaxUDP: int(flags >> 4 & 3)}
		total := joinGlue(r.RRs, flags&8 != 0)
		a, err := Pack(q, r)
		if err != nil {
			t.Fatalf("pack what was parsed: %v", err)
		}
		rendering := a.Append(nil, q, Render{Client: client, Pick: pick, Age: age, EDE: uint16(flags)})
		if len(rendering) > q.Limit() {
			t.Errorf("%d bytes, limit %d", len(rendering), q.Limit())
		}
		got := new(dns.Msg)
		if err := got.Unpack(rendering); err != nil {
			t.Fatalf("unpack: %v\n%x", err, rendering)
		}
		q.TCP, a.policy = true, policy{}
		all, some := plain(unpack(t, parsed.Append(nil, question(parsed), Render{}))), plain(got)
		sent := 0
		for rr, n := range some {
			sent += n
			if all[rr] < n {
				t.Errorf("%s is not in the answer", rr)
			}
		}
		if (got.IsEdns0() != nil) != (size > 0) {
			t.Error("OPT lost or made up")
		}
		if whole := plain(unpack(t, a.Append(nil, q, Render{Pick: pick}))); sent == total && total < 100 && !cmp.Equal(all, whole) {
			t.Error(cmp.Diff(all, whole))
		}
	})
}

// isOneClass reports whether all records are of the question's class, which is not ANY: an RR has no class of its own.
func isOneClass(m *dns.Msg) bool {
	class := m.Question[0].Qclass
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Class != class && h.Rrtype != dns.TypeOPT {
				return false
			}
		}
	}
	return class != ClassANY
}

// joinGlue makes additional records belong to the answers whose target they describe, and returns how many records there are.
func joinGlue(rrs []RR, expendable bool) int {
	for i := range rrs {
		rr := &rrs[i]
		rr.Expendable = expendable && rr.Type == TypeTXT
		for j := range rrs {
			at := targetAt(rrs[j].Type)
			if rr.Section == Additional && rrs[j].Section == Answers && at >= 0 && len(rrs[j].Data) >= at &&
				strings.EqualFold(string(rrs[j].Data[at:]), string(rr.Owner)) {
				rr.With = j + 1
			}
		}
	}
	return len(rrs)
}

// TestParseAnswer_Seeds holds the seeds to what they are for: all are read, whichever way the OPT lies.
func TestParseAnswer_ReadsWhatServersSend(t *testing.T) {
	for name, msg := range replies(t) {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAnswer(msg)
			if err != nil {
				t.Fatalf("%v\n%x", err, msg)
			}
			want := unpack(t, msg)
			if diff := cmp.Diff(plain(want), plain(unpack(t, a.Append(nil, question(a), Render{})))); diff != "" {
				t.Error(diff)
			}
			if code, text := a.EDE(); strings.Contains(name, "OPT") && (code != 22 || text != "none reachable") {
				t.Errorf("EDE %d %q", code, text)
			}
			q := question(a)
			r := &Reply{RRs: a.RRs()}
			joinGlue(r.RRs, false)
			own := mustPack(t, q, r)
			if diff := cmp.Diff(plain(want), plain(unpack(t, own.Append(nil, q, Render{})))); diff != "" {
				t.Errorf("packed again: %s", diff)
			}
			for n := range msg {
				if _, err := ParseAnswer(msg[:n]); err == nil {
					t.Errorf("the first %d of %d bytes are read as a message", n, len(msg))
				}
			}
		})
	}
}

// reply makes a response to www.example.com A with an answer section of raw bytes.
func reply(answers int, raw ...byte) []byte {
	msg := []byte{0, 1, 0x81, 0x80, 0, 1, 0, byte(answers), 0, 0, 0, 0}
	msg = append(msg, "\x03www\x07example\x03com\x00\x00\x01\x00\x01"...)
	return append(msg, raw...)
}

func TestParseAnswer_RefusesMalformed_RFC1035(t *testing.T) {
	const at = 33 // of the first record
	a := func(owner ...byte) []byte { return append(owner, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1) }
	if _, err := ParseAnswer(reply(1, a(0xc0, 12)...)); err != nil {
		t.Fatal(err)
	}
	query := reply(0)
	query[2] = 1
	twoQuestions := reply(0)
	twoQuestions[5] = 2
	opt := []byte{0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0}
	additional := func(n byte, raw []byte) []byte { m := reply(0, raw...); m[11] = n; return m }
	for name, msg := range map[string][]byte{
		"a query":                       query,
		"two questions":                 twoQuestions,
		"record missing":                reply(2, a(0xc0, 12)...),
		"pointer to itself":             reply(1, a(0xc0, at)...),
		"pointer forward":               reply(1, a(0xc0, at+4)...),
		"pointer into the header":       reply(1, a(0xc0, 4)...),
		"pointer into a label":          reply(1, a(0xc0, 14)...),
		"pointer into a TTL":            reply(2, append(a(0xc0, 12), a(0xc0, at+6)...)...),
		"pointer into an address":       reply(2, append(a(0xc0, 12), a(0xc0, at+12)...)...),
		"label beyond unknown rdata":    reply(2, append([]byte{0xc0, 12, 0xff, 1, 0, 1, 0, 0, 0, 9, 0, 4, 5, 'a', 'a', 'a'}, a(0xc0, at+12)...)...),
		"loop through the owner":        reply(1, a(1, 'a', 0xc0, at)...),
		"label type 0x40":               reply(1, a(0x41, 1)...),
		"address of 3 bytes":            reply(1, append([]byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3}, 1, 2, 3)...),
		"CNAME and more":                reply(1, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 0xc0, 12, 0),
		"CNAME beyond its rdata":        reply(1, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 1, 1, 'a', 0),
		"SOA without numbers":           reply(1, 0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 9, 0, 4, 0xc0, 12, 0xc0, 12),
		"OPT among the answers":         reply(1, opt...),
		"two OPT":                       additional(2, append(append([]byte(nil), opt...), opt...)),
		"OPT not of the root":           additional(1, append([]byte{0xc0, 12}, opt[1:]...)),
		"option longer than its record": additional(1, append(append([]byte(nil), opt[:9]...), 0, 4, 0, 15, 0, 9)),
		"name of 256 bytes": reply(1, append(append(bytesRepeat("\x3f"+strings.Repeat("a", 63), 4), 0),
			0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4)...),
	} {
		if _, err := ParseAnswer(msg); err == nil {
			t.Errorf("%s: read without complaint", name)
		}
	}
}

// Imperfect upstreams and what is on the way to them: what of a reply can be read is read.
func TestParseAnswer_TakesWhatIsWhole(t *testing.T) {
	a := func(last byte) []byte { return []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last} }
	opt := []byte{0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0}
	counted := func(msg []byte, authority, additional byte) []byte {
		msg = bytes.Clone(msg)
		msg[9], msg[11] = authority, additional
		return msg
	}
	tc := func(msg []byte) []byte { msg[2] |= 2; return msg }
	two := append(a(1), a(2)...)
	for name, c := range map[string]struct {
		msg     []byte
		records int
		edns    bool
	}{
		"octets after the last record":      {append(reply(1, a(1)...), 1, 2, 3), 1, false},
		"octets after the OPT":              {append(counted(reply(1, append(a(1), opt...)...), 0, 1), 0), 1, true},
		"cut within the second record":      {tc(reply(2, two[:len(two)-3]...)), 1, false},
		"cut within the first record":       {tc(reply(2, two[:5]...)), 0, false},
		"cut before any record":             {tc(reply(2)), 0, false},
		"cut between records":               {tc(reply(9, two...)), 2, false},
		"counts of the whole":               {tc(counted(reply(1, a(1)...), 4, 200)), 1, false},
		"cut within the authority":          {tc(counted(reply(1, two[:20]...), 1, 1)), 1, false},
		"cut behind the OPT":                {tc(counted(reply(1, append(append(a(1), opt...), a(2)[:7]...)...), 0, 2)), 1, true},
		"cut behind the OPT and an address": {tc(counted(reply(1, append(append(append(a(1), opt...), a(2)...), a(3)[:7]...)...), 0, 3)), 2, true},
	} {
		got, err := ParseAnswer(c.msg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.RRs()) != c.records || got.EDNS() != c.edns {
			t.Errorf("%s: %d records, OPT %v", name, len(got.RRs()), got.EDNS())
		}
	}
	// Without TC a message must hold what it says.
	if _, err := ParseAnswer(reply(2, two[:len(two)-3]...)); err == nil {
		t.Error("a record that is missing went unseen")
	}
	if _, err := ParseAnswer(counted(reply(0, append(opt, opt...)...), 0, 2)); !errors.Is(err, ErrOPT) {
		t.Errorf("two OPT: %v", err)
	}
}

func bytesRepeat(s string, n int) []byte { return []byte(strings.Repeat(s, n)) }

func TestParseAnswer_TTLs_RFC2181_RFC8767(t *testing.T) {
	msg := func(rrs ...string) []byte {
		m := new(dns.Msg)
		m.SetQuestion("www.example.com.", dns.TypeA)
		m.Response = true
		for _, s := range rrs {
			rr, err := dns.NewRR(s)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(s, "SOA") {
				m.Ns = append(m.Ns, rr)
				continue
			}
			m.Answer = append(m.Answer, rr)
		}
		return mustMiekgPack(t, m)
	}
	soa := "example.com. 900 IN SOA ns.example.com. host.example.com. 1 2 3 4 60"
	for _, tc := range []struct {
		name     string
		rrs      []string
		ttls     []uint32
		min      uint32
		negative bool
		neg      uint32
		hasNeg   bool
	}{
		{"L1 an RRset takes its lowest", []string{"www.example.com. 300 IN A 192.0.2.1", "WWW.example.com. 20 IN A 192.0.2.2", "www.example.com. 70 IN AAAA ::1"},
			[]uint32{20, 20, 70}, 20, false, 0, false},
		{"L2 top bit is capped", []string{"www.example.com. 4294967295 IN A 192.0.2.1"}, []uint32{TTLCap}, TTLCap, false, 0, false},
		{"N2 no data takes the lower of TTL and minimum", []string{soa}, []uint32{60}, 60, true, 60, true},
		{"N4 a chain to nothing", []string{"www.example.com. 30 IN CNAME a.example.com.", soa}, []uint32{30, 60}, 30, true, 60, true},
		{"N3 nothing without SOA", nil, nil, 0, true, 0, false},
		{"N5 a chain without end", []string{"www.example.com. 30 IN CNAME a.example.com."}, []uint32{30}, 30, true, 0, false},
		{"SOA beside an answer keeps its TTL", []string{"www.example.com. 30 IN A 192.0.2.1", soa}, []uint32{30, 900}, 30, false, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := ParseAnswer(msg(tc.rrs...))
			if err != nil {
				t.Fatal(err)
			}
			var ttls []uint32
			for _, rr := range a.RRs() {
				ttls = append(ttls, rr.TTL)
			}
			ttl, has := a.MinTTL()
			neg, hasNeg := a.NegativeTTL()
			if !cmp.Equal(ttls, tc.ttls) || ttl != tc.min || has != (tc.rrs != nil) || a.Negative() != tc.negative || neg != tc.neg || hasNeg != tc.hasNeg {
				t.Errorf("TTLs %v, min %d, negative %v, for %d %v", ttls, ttl, a.Negative(), neg, hasNeg)
			}
		})
	}
}

func TestParseAnswer_ManyRecordsTakeTheirLowestTTL_RFC2181(t *testing.T) {
	m := new(dns.Msg)
	m.SetQuestion("www.example.com.", dns.TypeA)
	m.Response, m.Compress = true, true
	for i := range 3000 {
		hdr := dns.RR_Header{Name: "www.example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(5000 - i)}
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: binary.BigEndian.AppendUint32(nil, uint32(i))})
	}
	a, err := ParseAnswer(mustMiekgPack(t, m))
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range a.RRs() {
		if rr.TTL != 2001 {
			t.Fatalf("TTL %d, want 2001", rr.TTL)
		}
	}
	q := ask(t, "www.example.com.", TypeA, 0)
	got := unpack(t, a.Append(nil, q, Render{Client: 3}))
	if len(got.Answer) != 29 || !got.Truncated {
		t.Errorf("E8: %d answers, TC %v; want as many as fit and TC", len(got.Answer), got.Truncated)
	}
}

func TestParseAnswer_PlacesPointedAtStay(t *testing.T) {
	a, err := ParseAnswer(replies(t)["MX"])
	if err != nil {
		t.Fatal(err)
	}
	if got := setsOf(a); len(got) != 0 {
		t.Errorf("records that others point into may move: %v", got)
	}
	a, err = ParseAnswer(replies(t)["CNAME"])
	if err != nil {
		t.Fatal(err)
	}
	if got := setsOf(a); !slices.Equal(got, []set{{1, 2}}) {
		t.Errorf("sets %v, want the two addresses behind the CNAME", got)
	}
}

// setsOf are those of more than one record.
func setsOf(a *Answer) (sets []set) {
	for i := 0; i < a.ans(); {
		s := a.setAt(i)
		if s.n > 1 {
			sets = append(sets, s)
		}
		i += s.n
	}
	return sets
}

func TestPack_RejectsWhatIsNoRecord(t *testing.T) {
	q := ask(t, "web.consul.", TypeA, 0)
	owner := mustName(t, "web.consul.")
	for name, rr := range map[string]RR{
		"owner in presentation form": {Owner: "web.consul.", Type: TypeA},
		"no owner":                   {Type: TypeA},
		"OPT":                        {Owner: Root, Type: TypeOPT},
		"section":                    {Owner: owner, Type: TypeA, Section: 3},
		"glue of nothing":            {Owner: owner, Type: TypeA, Section: Additional, With: 2},
		"answer as glue":             {Owner: owner, Type: TypeA, With: 1},
		"CNAME to nothing":           {Owner: owner, Type: TypeCNAME, Data: []byte{3, 'a'}},
		"address of 3 bytes":         {Owner: owner, Type: TypeA, Data: []byte{1, 2, 3}},
		"SOA of one name":            {Owner: owner, Type: TypeSOA, Data: []byte{0}},
	} {
		if _, err := Pack(q, &Reply{RRs: []RR{rr}}); err == nil {
			t.Errorf("%s: packed", name)
		}
	}
	if _, err := Pack(&Query{}, &Reply{}); err == nil {
		t.Error("packed for no question")
	}
}

func TestPack_SRVTargetIsNotCompressed_RFC2782(t *testing.T) {
	q := ask(t, "WEB.service.CONSUL.", TypeSRV, 4096)
	a := mustPack(t, q, &Reply{RRs: []RR{{Owner: mustName(t, "web.service.consul."), Type: TypeSRV, Data: SRV(1, 1, 1, mustName(t, "n1.node.dc1.Consul."))},
		{Section: Authority, Owner: mustName(t, "consul."), Type: TypeNS, Data: NameData(mustName(t, "n1.node.consul."))}}})
	got := unpack(t, a.Append(nil, q, Render{}))
	if target := got.Answer[0].(*dns.SRV).Target; target != "n1.node.dc1.Consul." {
		t.Errorf("target %s, want the spelling that was configured", target)
	}
	if ns := got.Ns[0].(*dns.NS).Ns; ns != "n1.node.CONSUL." {
		t.Errorf("NS %s is not compressed into the question", ns)
	}
}

func TestPack_MoreThanAMessageHolds(t *testing.T) {
	owner := mustName(t, "web.service.consul.")
	for name, rrs := range map[string][]RR{"addresses": addresses(owner, 60000), "services": services(t, owner, 3000)} {
		t.Run(name, func(t *testing.T) {
			q := ask(t, "web.service.consul.", rrs[0].Type, 4096)
			q.TCP = true
			a := mustPack(t, q, &Reply{RRs: rrs, Rotate: true})
			msg := a.Append(nil, q, Render{Pick: 1 << 31})
			if len(msg) < 60000 || len(msg) > 65535 {
				t.Errorf("%d bytes", len(msg))
			}
			got := unpack(t, msg)
			if name == "services" {
				targets := make(map[string]bool)
				for _, rr := range got.Answer {
					targets[rr.(*dns.SRV).Target] = true
				}
				for _, rr := range got.Extra {
					if rr.Header().Rrtype == dns.TypeA && !targets[rr.Header().Name] {
						t.Errorf("%v belongs to no SRV", rr)
					}
				}
				if len(got.Answer) < 600 {
					t.Errorf("%d SRV", len(got.Answer))
				}
			}
		})
	}
}

func TestParseAnswer_Allocations(t *testing.T) {
	msg := replies(t)["CNAME,OPT"]
	if n := testing.AllocsPerRun(100, func() { ParseAnswer(msg) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
}

// A server may spell the name as it likes; the cache compares it byte by byte.
func TestAnswer_QNameIsInLowerCase(t *testing.T) {
	q := NewQuery("\x03WwW\x07eXample\x00", TypeA)
	msg := AppendQuery(nil, q, 1, false)
	copy(msg[headerSize:], "\x03WwW\x07eXample\x00")
	msg[2] |= 0x80
	parsed, err := ParseAnswer(msg)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := Pack(q, &Reply{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Answer{parsed, packed} {
		if got := string(a.QName()); got != "\x03www\x07example\x00" {
			t.Errorf("%q", got)
		}
	}
}

func BenchmarkParseAnswer(b *testing.B) {
	for _, name := range []string{"A,OPT", "CNAME,OPT"} {
		b.Run(name, func(b *testing.B) {
			msg := replies(b)[name]
			b.ReportAllocs()
			for b.Loop() {
				ParseAnswer(msg)
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	owner := mustName(b, "web.service.consul.")
	q := ask(b, "web.service.consul.", TypeSRV, 4096)
	r := &Reply{RRs: services(b, owner, 64), Rotate: true}
	b.ReportAllocs()
	for b.Loop() {
		Pack(q, r)
	}
}
