package local

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"meibo/resolver/wire"
)

// parseRecords reads static records, "NAME [TTL] TYPE DATA" each, in the
// presentation form of RFC 1035 section 5.1.
func parseRecords(lines []string, ttl uint32) (map[string][]wire.RR, error) {
	records := make(map[string][]wire.RR)
	for _, line := range lines {
		rr, err := parseRecord(line, ttl)
		if err != nil {
			return nil, fmt.Errorf("hosts.records: %q: %w; write NAME [TTL] TYPE DATA, as in \"nas.home A 192.0.2.7\"", line, err)
		}
		key := string(rr.Owner)
		records[key] = append(records[key], rr)
	}
	for _, rrs := range records {
		if len(rrs) > 1 && slices.ContainsFunc(rrs, func(rr wire.RR) bool { return rr.Type == wire.TypeCNAME }) {
			return nil, fmt.Errorf("hosts.records: %s has a CNAME and %d other records; a CNAME stands alone (RFC 2181 section 10.1)", rrs[0].Owner, len(rrs)-1)
		}
	}
	return records, nil
}

// parseRecord reads one record.
func parseRecord(line string, ttl uint32) (wire.RR, error) {
	if strings.Contains(line, "\n") || strings.HasPrefix(strings.TrimSpace(line), "$") { // a directive begins a line (RFC 1035 section 5.1)
		return wire.RR{}, fmt.Errorf("one record a line, and no directives")
	}
	parser := dns.NewZoneParser(strings.NewReader(line+"\n"), ".", "")
	parser.SetDefaultTTL(ttl)
	rr, ok := parser.Next()
	if err := parser.Err(); err != nil {
		return wire.RR{}, err
	}
	if !ok {
		return wire.RR{}, fmt.Errorf("no record")
	}
	if err := answerable(rr); err != nil {
		return wire.RR{}, err
	}
	owner, err := wire.ParseName(rr.Header().Name)
	if err != nil {
		return wire.RR{}, err
	}
	if owner == wire.Root {
		return wire.RR{}, errors.New("the root is not a name of this host, and @ stands for nothing here: write the whole name")
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(rr.Header().Name, ".")); err == nil {
		return wire.RR{}, fmt.Errorf("nobody asks for an address as a name: PTR records belong to %s", wire.ReverseName(addr))
	}
	if slices.Contains(owner.Labels(), "*") {
		return wire.RR{}, fmt.Errorf("there are no wildcards: forward %q { addresses = [\"…\"] } gives every name of a domain its addresses", strings.TrimPrefix(strings.TrimSuffix(owner.String(), "."), "*."))
	}
	if why := owner.Lower().Unasked(); why != "" {
		return wire.RR{}, errors.New(why)
	}
	buf := make([]byte, dns.Len(rr)+16)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return wire.RR{}, err
	}
	head := len(owner) + 10 // type, class, TTL, length
	if n <= head {
		return wire.RR{}, fmt.Errorf("record without data")
	}
	return wire.RR{
		Owner: owner.Lower(), Type: rr.Header().Rrtype, TTL: rr.Header().Ttl, Data: buf[head:n:n],
	}, nil
}

// answerable refuses what would be taken and never answered as it is meant.
func answerable(rr dns.RR) error {
	if rr.Header().Class != dns.ClassINET {
		return fmt.Errorf("class %s: records here are of class IN", dns.ClassToString[rr.Header().Class])
	}
	switch rr.(type) {
	case *dns.DNAME:
		return errors.New("a static DNAME makes no names here: name each host")
	case *dns.NS, *dns.SOA, *dns.RRSIG, *dns.NSEC, *dns.NSEC3, *dns.NSEC3PARAM, *dns.DNSKEY, *dns.DS:
		return fmt.Errorf("type %s makes a zone, and static records are none: give the domain a server of its own with a forward block", dns.TypeToString[rr.Header().Rrtype])
	case *dns.OPT, *dns.TSIG, *dns.ANY:
		return fmt.Errorf("type %s is not one of records", dns.TypeToString[rr.Header().Rrtype])
	}
	return nil
}
