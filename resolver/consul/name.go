package consul

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"meibo/resolver/wire"
)

// kind is what a name below the domain names.
type kind uint8

const (
	nowhere kind = iota // nothing: NXDOMAIN
	between             // nothing itself, but names exist below it: NODATA (RFC 8020)
	apex
	services
	nodes
	address
)

// question is a name below the domain, taken apart.
type question struct {
	kind kind
	name string     // of the service or node, in lower case
	tag  string     // in lower case; "" means any
	addr netip.Addr // of kind address
	also netip.Addr // the IPv6 one of a name that stands for one of each family
	// srvOnly marks the form without ".service", which has SRV records only.
	srvOnly bool
}

// isKind reports whether a label has a meaning of its own inside the zone.
func isKind(label string) bool {
	switch label {
	case "service", "node", "addr", "connect", "virtual", "ingress", "query":
		return true
	}
	return false
}

// parse takes apart the labels left of the domain, which are in lower case.
// The labels are read from the right: the first one that names a kind divides
// the parts at its left from the locality at its right. One that begins with an
// underscore before that begins the form of RFC 2782 without ".service".
func (s *settings) parse(labels []string) question {
	if len(labels) == 0 {
		return question{kind: apex}
	}
	for _, l := range labels {
		// A dot inside a label would read as a border between two.
		if strings.Contains(l, ".") {
			return question{}
		}
	}
	for i := len(labels) - 1; i >= 0; i-- {
		if isKind(labels[i]) {
			return s.parseKind(labels[i], labels[:i], labels[i+1:])
		}
		if strings.HasPrefix(labels[i], "_") {
			q := s.parseKind("service", labels[:i+1], labels[i+1:])
			q.srvOnly = true
			return q
		}
	}
	if s.leadsToLocality(labels) {
		return question{kind: between}
	}
	return question{}
}

func (s *settings) parseKind(label string, parts, locality []string) question {
	switch label {
	case "addr":
		// Whatever follows "addr" is not looked at, as in Consul.
		return parseAddress(parts)
	case "service", "node":
	default:
		// Connect, gateways, virtual addresses and prepared queries don't exist.
		return question{}
	}
	if !s.isHere(locality) {
		return question{}
	}
	if len(parts) == 0 {
		return question{kind: between}
	}
	if label == "node" {
		return question{kind: nodes, name: strings.Join(parts, ".")}
	}
	return parseService(parts)
}

// parseService reads NAME, TAG.NAME and _NAME._TAG. A tag may have dots.
func parseService(parts []string) question {
	last := len(parts) - 1
	if len(parts) == 2 && strings.HasPrefix(parts[0], "_") && strings.HasPrefix(parts[1], "_") {
		q := question{kind: services, name: parts[0][1:], tag: parts[1][1:]}
		if q.tag == "tcp" {
			q.tag = ""
		}
		return q
	}
	return question{kind: services, name: parts[last], tag: strings.Join(parts[:last], ".")}
}

// parseAddress reads eight or thirty-two hexadecimal digits, or forty: an IPv4 and
// an IPv6 address (ours; SRV records of what has both point to it).
func parseAddress(parts []string) question {
	if len(parts) == 0 {
		return question{kind: between}
	}
	if len(parts) != 1 {
		return question{}
	}
	b, err := hex.DecodeString(parts[0])
	if err != nil {
		return question{}
	}
	if len(b) == 4+16 {
		return question{kind: address, addr: netip.AddrFrom4([4]byte(b)), also: netip.AddrFrom16([16]byte(b[4:]))}
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return question{}
	}
	return question{kind: address, addr: addr}
}

// isHere reports whether the labels right of a kind mean this datacenter:
// none, "DC" or "DC.dc". Peers, partitions and namespaces don't exist.
func (s *settings) isHere(locality []string) bool {
	switch len(locality) {
	case 0:
		return true
	case 1:
		return locality[0] == s.dcLower
	case 2:
		return locality[0] == s.dcLower && locality[1] == "dc"
	}
	return false
}

// leadsToLocality reports whether the labels are the right end of some name's
// locality: "DC", "dc" or "DC.dc".
func (s *settings) leadsToLocality(labels []string) bool {
	if len(labels) == 1 && labels[0] == "dc" {
		return true
	}
	return s.isHere(labels)
}

// prepend puts labels before a name.
func prepend(suffix wire.Name, labels ...string) (wire.Name, error) {
	var b strings.Builder
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return "", fmt.Errorf("%q cannot be a DNS label: it has %d octets, 1 to 63 can be", l, len(l))
		}
		b.WriteByte(byte(len(l)))
		b.WriteString(l)
	}
	if n := b.Len() + len(suffix); n > 255 {
		return "", fmt.Errorf("name of %d octets in front of %s is too long for DNS", n, suffix)
	}
	b.WriteString(string(suffix))
	return wire.Name(b.String()), nil
}

// nodeName returns the name of a node below the domain. Dots in the node's
// name become borders of labels, everything else stays as it is.
func (d *domain) nodeName(node string) (wire.Name, error) {
	return prepend(d.nodes, strings.Split(node, ".")...)
}

// serviceName returns the name of a service below the domain.
func (d *domain) serviceName(service string) (wire.Name, error) {
	return prepend(d.services, strings.Split(service, ".")...)
}

// addrName returns the name that stands for an address.
func (d *domain) addrName(addr netip.Addr) wire.Name { return d.bytesName(addr.AsSlice()) }

// pairName returns the name that stands for an address of each family.
func (d *domain) pairName(v4, v6 netip.Addr) wire.Name {
	return d.bytesName(append(v4.AsSlice(), v6.AsSlice()...))
}

func (d *domain) bytesName(addr []byte) wire.Name {
	n, err := prepend(d.addrs, hex.EncodeToString(addr))
	if err != nil {
		// The domain was checked to have room for what stands before it.
		panic(err)
	}
	return n
}
