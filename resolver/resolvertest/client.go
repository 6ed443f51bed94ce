package resolvertest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/wire"
)

// Ask puts req to r as a client on loopback would, over UDP unless tcp, and waits
// for the reply; nil when the query was dropped.
func Ask(t testing.TB, r *resolver.Resolver, req *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	b, err := req.Pack()
	if err != nil {
		t.Fatalf("pack the query: %v", err)
	}
	return AskRaw(t, r, b, tcp)
}

// AskRaw is Ask for bytes that need not be a valid query.
func AskRaw(t testing.TB, r *resolver.Resolver, query []byte, tcp bool) *dns.Msg {
	t.Helper()
	q := &wire.Query{TCP: tcp, Client: netip.MustParseAddrPort("127.0.0.1:4321"), Local: netip.MustParseAddr("127.0.0.1")}
	later := make(chan []byte, 1)
	v := q.Parse(query)
	out := r.ServeDNS(q, v, nil, func(_ *wire.Query, msg []byte) { later <- bytes.Clone(msg) })
	if out == nil {
		if v == wire.Drop {
			return nil
		}
		out = <-later
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("unpack the reply: %v\n%x", err, out)
	}
	return m
}

// Query is a question with an OPT of 1232 bytes.
func Query(name string, typ uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), typ).SetEdns0(1232, false)
}

// Text is a message as a test compares it: response code, flags, Extended Error
// and records, the records of a section sorted.
func Text(m *dns.Msg) string {
	if m == nil {
		return "dropped"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s", dns.RcodeToString[m.Rcode], flagText(m))
	if code, text, ok := EDE(m); ok {
		fmt.Fprintf(&b, " ede %d %q", code, text)
	}
	b.WriteByte('\n')
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		prefix := [...]string{"", "authority: ", "additional: "}[i]
		for _, rr := range Records(section) {
			b.WriteString(prefix + rr + "\n")
		}
	}
	return b.String()
}

func flagText(m *dns.Msg) string {
	s := ""
	for _, f := range []struct {
		set  bool
		name string
	}{{m.Authoritative, " aa"}, {m.Truncated, " tc"}, {m.AuthenticatedData, " ad"}, {m.CheckingDisabled, " cd"}, {!m.RecursionAvailable, " NO-RA"}} {
		if f.set {
			s += f.name
		}
	}
	return s
}

// Records are a section's records with single spaces, sorted, without OPT.
func Records(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	slices.Sort(out)
	return out
}

// EDE is the Extended DNS Error of m.
func EDE(m *dns.Msg) (code uint16, text string, ok bool) {
	o := m.IsEdns0()
	if o == nil {
		return 0, "", false
	}
	for _, opt := range o.Option {
		if e, is := opt.(*dns.EDNS0_EDE); is {
			return e.InfoCode, e.ExtraText, true
		}
	}
	return 0, "", false
}
