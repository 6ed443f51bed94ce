package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packet makes a query for www.example A, with what follows the question.
func packet(additional byte, rest ...byte) []byte {
	msg := []byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional}
	msg = append(msg, "\x03WwW\x07eXample\x00\x00\x01\x00\x01"...)
	return append(msg, rest...)
}

func TestParse_Verdicts(t *testing.T) {
	with := func(msg []byte, at int, b byte) []byte {
		msg = bytes.Clone(msg)
		msg[at] = b
		return msg
	}
	opt := []byte{0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0}
	ecs := append(append([]byte(nil), opt[:10]...), 12, 0, 8, 0, 8, 0, 1, 24, 0, 192, 0, 2, 9)
	for name, tc := range map[string]struct {
		msg  []byte
		want Verdict
	}{
		"a question":                              {packet(0), OK},
		"a question with OPT":                     {packet(1, opt...), OK},
		"too short for a header":                  {packet(0)[:11], Drop},
		"nothing":                                 {nil, Drop},
		"a response":                              {with(packet(0), 2, 0x81), Drop},
		"a header alone":                          {packet(0)[:12], FormErr},
		"RFC 9619 two questions":                  {with(packet(0), 5, 2), FormErr},
		"RFC 9619 no question":                    {with(packet(0)[:12], 5, 0), FormErr},
		"opcode UPDATE":                           {with(packet(0), 2, 5<<3), NotImp},
		"opcode NOTIFY without a question":        {with(with(packet(0)[:12], 2, 4<<3), 5, 0), NotImp},
		"octets after the last record":            {packet(0, 0), OK},
		"octets after the OPT":                    {packet(1, append(bytes.Clone(opt), 1, 2, 3, 4, 5, 6, 7)...), OK},
		"octets that could be a record":           {packet(0, opt...), OK},
		"pointer in the question":                 {with(packet(0), 12, 0xc0), FormErr},
		"label type 0x40 in the question":         {with(packet(0), 12, 0x41), FormErr},
		"name without end":                        {packet(0)[:20], FormErr},
		"question without class":                  {packet(0)[:len(packet(0))-1], FormErr},
		"RFC 6891 two OPT":                        {packet(2, append(bytes.Clone(opt), opt...)...), FormErr},
		"RFC 6891 OPT not of the root":            {packet(1, append([]byte{0xc0, 12}, opt[1:]...)...), FormErr},
		"RFC 6891 OPT among the answers":          {with(with(packet(1, opt...), 11, 0), 7, 1), FormErr},
		"RFC 6891 version 1":                      {packet(1, 0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0), BadVers},
		"RFC 6891 option longer than its record":  {packet(1, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 4, 0, 8, 0, 1), FormErr},
		"RFC 6891 half an option":                 {packet(1, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 3, 0, 8, 0), FormErr},
		"RFC 6891 OPT longer than the message":    {packet(1, append(bytes.Clone(opt[:10]), 9)...), FormErr},
		"count without a record":                  {packet(1), FormErr},
		"pointer forward in a later record":       {packet(1, 0xc0, 40, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0), FormErr},
		"RFC 7871 client subnet":                  {packet(1, ecs...), OK},
		"RFC 8945 TSIG passes":                    {packet(1, 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0), OK},
		"RFC 7871 malformed client subnet passes": {packet(1, with(ecs, 16, 3)...), OK},
	} {
		t.Run(name, func(t *testing.T) {
			var q Query
			if v := q.Parse(tc.msg); v != tc.want {
				t.Errorf("Parse = %v, want %v", v, tc.want)
			}
		})
	}
}

func TestParse_Fields(t *testing.T) {
	var q Query
	msg := packet(1, 0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2)
	msg[3] = 0x30 // AD, CD
	if v := q.Parse(msg); v != OK {
		t.Fatal(v)
	}
	if string(q.Name()) != "\x03www\x07example\x00" || string(q.NameAsked()) != "\x03WwW\x07eXample\x00" {
		t.Errorf("names %q, %q", q.Name(), q.NameAsked())
	}
	if q.ID != 0xabcd || !q.RD || !q.AD || !q.CD || q.Type != TypeA || q.Class != ClassIN || !q.EDNS || q.UDPSize != 4096 || !q.DO ||
		!bytes.Equal(q.ECS, []byte{0, 1, 24, 0, 192, 0, 2}) {
		t.Errorf("%+v", q)
	}
	c := q.Clone()
	clear(msg)
	if string(c.NameAsked()) != "\x03WwW\x07eXample\x00" || string(c.Name()) != "\x03www\x07example\x00" || c.ECS[4] != 192 {
		t.Error("the clone does not own its bytes")
	}
	if v := q.Parse(packet(0)); v != OK || q.EDNS || q.DO || q.ECS != nil || q.CD || q.UDPSize != 0 {
		t.Errorf("something of the message before is left: %+v", q)
	}
	clone := (&Query{}).Clone() // of nothing: a handler may clone whatever it is shown
	if len(AppendError(nil, clone, RcodeFormErr, 0, "")) != headerSize {
		t.Error("no header for a query that could not be read")
	}
}

func TestParse_LongestName_RFC1035(t *testing.T) {
	label := "\x3f" + strings.Repeat("a", 63)
	for _, tc := range []struct {
		last int
		want Verdict
	}{{61, OK}, {62, FormErr}} {
		name := strings.Repeat(label, 3) + string(rune(tc.last)) + strings.Repeat("b", tc.last) + "\x00"
		msg := append(packet(0)[:12:12], name...)
		var q Query
		if v := q.Parse(append(msg, 0, 1, 0, 1)); v != tc.want {
			t.Errorf("name of %d bytes: %v, want %v", len(name), v, tc.want)
		}
	}
}

func TestLimit_RFC6891_RFC9715(t *testing.T) {
	for name, tc := range map[string]struct {
		q             Query
		client, local string
		want          int
	}{
		"E3 no EDNS":                     {Query{}, "127.0.0.1", "127.0.0.1", 512},
		"E4 less than 512":               {Query{EDNS: true, UDPSize: 100}, "127.0.0.1", "127.0.0.1", 512},
		"E6 loopback gets what it asks":  {Query{EDNS: true, UDPSize: 65494}, "::1", "::1", 65494},
		"E6 no more than UDP carries":    {Query{EDNS: true, UDPSize: 65535}, "::1", "::1", 65507},
		"E6 another host gets 1232":      {Query{EDNS: true, UDPSize: 4096}, "192.0.2.1", "192.0.2.2", 1232},
		"E6 another host that asks less": {Query{EDNS: true, UDPSize: 900}, "192.0.2.1", "192.0.2.2", 900},
		"this host under its address":    {Query{EDNS: true, UDPSize: 4096}, "192.0.2.1", "192.0.2.1", 4096},
		"TCP":                            {Query{TCP: true}, "192.0.2.1", "192.0.2.2", 65535},
	} {
		tc.q.Client, tc.q.Local = netip.AddrPortFrom(netip.MustParseAddr(tc.client), 1), netip.MustParseAddr(tc.local)
		if got := tc.q.Limit(); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	if got := NewQuery(Root, TypeNS).Limit(); got != 65535 {
		t.Errorf("question of our own: %d", got)
	}
}

func TestAppendQuery(t *testing.T) {
	var client Query
	m := new(dns.Msg)
	m.SetQuestion("WwW.Example.", dns.TypeAAAA)
	m.CheckingDisabled = true
	m.SetEdns0(4096, true)
	if v := client.Parse(mustMiekgPack(t, m)); v != OK {
		t.Fatal(v)
	}
	got := unpack(t, AppendQuery(nil, &client, 7, true))
	if got.Id != 7 || !got.RecursionDesired || !got.CheckingDisabled || got.Response || got.Question[0] != m.Question[0] ||
		got.IsEdns0().UDPSize() != 1232 || !got.IsEdns0().Do() || len(got.IsEdns0().Option) != 0 {
		t.Errorf("%v", got)
	}
	if got := unpack(t, AppendQuery(nil, &client, 7, false)); got.IsEdns0() != nil {
		t.Errorf("%v", got)
	}
	var q Query
	if v := q.Parse(AppendQuery(nil, NewQuery(mustName(t, "A.b."), TypeTXT), 1, true)); v != OK || string(q.Name()) != "\x01a\x01b\x00" {
		t.Errorf("%v %q", v, q.Name())
	}
	if v := q.Parse(AppendQuery(nil, NewQuery("no name", TypeTXT), 1, true)); v != FormErr {
		t.Errorf("a question without a name: %v", v)
	}
}

func TestMatches(t *testing.T) {
	a, err := ParseAnswer(replies(t)["A"])
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"www.example.com.": true, "WWW.example.COM.": true, "wwx.example.com.": false, "example.com.": false} {
		if got := a.Matches(NewQuery(mustName(t, name), TypeA)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if a.Matches(NewQuery(mustName(t, "www.example.com."), TypeAAAA)) {
		t.Error("another type matches")
	}
}

func TestParse_AllocatesNothing(t *testing.T) {
	msg := packet(1, 0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0)
	m := map[string]int{"\x03www\x07example\x00": 1}
	var q Query
	if n := testing.AllocsPerRun(100, func() {
		if q.Parse(msg) != OK || m[string(q.Name())] != 1 {
			t.Error("not parsed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	msg := append(packet(1)[:12:12], "\x03web\x07service\x06consul\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00"...)
	binary.BigEndian.PutUint16(msg[10:], 1)
	var q Query
	b.ReportAllocs()
	for b.Loop() {
		if q.Parse(msg) != OK {
			b.Fatal("not parsed")
		}
	}
}
