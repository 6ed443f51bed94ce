package forwarder

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"

	"meibo/resolver/wire"
)

// FuzzMatch feeds bytes to a pending query as the network does: whatever they are,
// nothing breaks, and what is taken has the ID and the question that were sent.
func FuzzMatch(f *testing.F) {
	const id = 0x1234
	name, _ := wire.ParseName("WWW.example")
	q := wire.NewQuery(name, wire.TypeA)
	seed := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	req := new(dns.Msg)
	if err := req.Unpack(wire.AppendQuery(nil, q, id, true)); err != nil {
		f.Fatal(err)
	}
	seed(req)
	rr := func(s string) dns.RR { r, _ := dns.NewRR(s); return r }
	answer := new(dns.Msg).SetReply(req)
	answer.Answer = []dns.RR{rr("www.example. 300 IN CNAME host.example."), rr("host.example. 300 IN A 192.0.2.1")}
	answer.Compress = true
	seed(answer)
	denial := new(dns.Msg).SetRcode(req, dns.RcodeNameError)
	denial.Ns = []dns.RR{rr("example. 300 IN SOA ns.example. h.example. 1 2 3 4 60")}
	seed(denial.SetEdns0(1232, true))
	bare := new(dns.Msg).SetRcode(req, dns.RcodeFormatError)
	bare.Question = nil
	seed(bare)
	wrong := answer.Copy()
	wrong.Id++
	seed(wrong)
	wrong = answer.Copy()
	wrong.Question[0].Name = "other.example."
	seed(wrong)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, ok := match(q, id, msg)
		if !ok {
			return
		}
		if got := binary.BigEndian.Uint16(msg); got != id {
			t.Fatalf("took ID %x", got)
		}
		if h.answer == nil {
			if h.fault == nil {
				t.Fatal("took nothing")
			}
			return
		}
		if !h.answer.Matches(q) {
			t.Fatal("took another question's answer")
		}
		h.answer.Append(nil, q, wire.Render{Age: 10})
	})
}
