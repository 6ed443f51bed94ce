// Package resolvertest is for tests: a scripted name server on loopback, for what
// needs sockets, and a runner of scenarios in virtual time, for what needs a
// clock.
//
// Both answer from the same rules: a question, what is said to it, and how it is
// said (late, cut, twice, under a wrong ID, not at all).
package resolvertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver/wire"
)

// Rule is what an upstream says to one question, and how. The zero value says
// NOERROR without records.
type Rule struct {
	Rcode int
	// Records in zone file form; those of the authority section are marked
	// by a leading "authority:", additional ones by "additional:".
	Records []string
	AD      bool
	EDE     uint16

	// Drop loses every question, DropFirst the first so many.
	Drop      bool
	DropFirst int
	// Delay is how late it answers.
	Delay time.Duration
	// Truncate sets TC over UDP and leaves the records out unless Partial.
	Truncate, Partial bool
	// NoTCP closes TCP connections without an answer.
	NoTCP bool
	// WrongID, WrongQuestion and Garbage are how many such packets come before
	// the true answer.
	WrongID, WrongQuestion, Garbage int
	// NoAnswer leaves the true answer out after those.
	NoAnswer bool
	// Twice sends the answer twice.
	Twice bool
	// RefuseEDNS answers FORMERR to questions with an OPT, BareFormErr without
	// repeating the question.
	RefuseEDNS, BareFormErr bool
	// NoRA offers no recursion.
	NoRA bool
	// RefuseWith is another response code for RefuseEDNS.
	RefuseWith int
	// RefuseWithOPT has RefuseEDNS send an OPT back.
	RefuseWithOPT bool
	// DropEDNS loses questions with an OPT.
	DropEDNS bool
	// Mangle changes the true answer on its way, MangleTCP the same over TCP.
	Mangle, MangleTCP func(msg []byte) []byte
	// LowerCase repeats the question in lower case.
	LowerCase bool
}

// Big is a rule whose answer has so many TXT records of 200 bytes: 300 of them
// come near the largest message there is.
func Big(name string, records int) Rule {
	var r Rule
	for i := range records {
		r.Records = append(r.Records, fmt.Sprintf("%s 300 IN TXT \"%0200d\"", name, i))
	}
	return r
}

// CNAMELoop is a rule whose aliases lead in a circle.
func CNAMELoop(name string) Rule {
	return Rule{Records: []string{name + " 300 IN CNAME loop." + name, "loop." + name + " 300 IN CNAME " + name}}
}

// NXDomain is a denial that may be kept for ttl seconds.
func NXDomain(zone string, ttl int) Rule {
	return Rule{Rcode: dns.RcodeNameError, Records: []string{soa(zone, ttl)}}
}

// NoData is NOERROR without records, to be kept for ttl seconds.
func NoData(zone string, ttl int) Rule { return Rule{Records: []string{soa(zone, ttl)}} }

func soa(zone string, ttl int) string {
	return fmt.Sprintf("authority: %s %d IN SOA ns.%s host.%s 1 7200 900 86400 %d", zone, ttl, zone, zone, ttl)
}

// key is how rules are found: the name in lower case and the type.
func key(name string, typ uint16) string {
	return strings.ToLower(dns.Fqdn(name)) + " " + wire.TypeString(typ)
}

// message builds the reply to req; an error is a fault of the test's records.
func (r Rule) message(req *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetRcode(req, r.Rcode)
	m.RecursionAvailable = !r.NoRA
	m.AuthenticatedData = r.AD
	for _, text := range r.Records {
		section := &m.Answer
		if rest, ok := strings.CutPrefix(text, "authority:"); ok {
			text, section = rest, &m.Ns
		} else if rest, ok := strings.CutPrefix(text, "additional:"); ok {
			text, section = rest, &m.Extra
		}
		rr, err := dns.NewRR(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", text, err)
		}
		if rr == nil {
			return nil, fmt.Errorf("record %q is empty", text)
		}
		*section = append(*section, rr)
	}
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
		if r.EDE != 0 {
			o := m.IsEdns0()
			o.Option = append(o.Option, &dns.EDNS0_EDE{InfoCode: r.EDE, ExtraText: "as scripted"})
		}
	}
	m.Compress = true
	return m, nil
}
