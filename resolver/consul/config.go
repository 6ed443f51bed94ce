package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"meibo/resolver/wire"
)

// Config says how the zone answers. The zero value is Consul's defaults for
// the domain "consul." and the datacenter "dc1".
type Config struct {
	// Domain is the zone; "" means "consul.". Its letter case is the one that
	// targets inside answers carry.
	Domain wire.Name
	// AltDomain is a second zone with the same contents; "" means none.
	AltDomain wire.Name
	// Datacenter is this host's, "" means "dc1".
	Datacenter string

	// NodeTTL is the TTL of node, NS, PTR and addr records; 0 to 2^31-1 s,
	// like every TTL here in whole seconds.
	NodeTTL time.Duration
	// ServiceTTL maps a service's name to its TTL. A key that ends in "*" is a
	// prefix; the exact name goes before the longest prefix. Letter case does
	// not matter. A service without a key has TTL 0.
	ServiceTTL map[string]time.Duration

	// MaxStale is how long after the last confirmation by a server answers are
	// what StaleAnswer says; 0: never. It counts only while the state isn't
	// fresh, and not before a server has ever confirmed one: then there is
	// nothing but this host's own word.
	MaxStale time.Duration
	// StaleAnswer is what becomes of answers staler than MaxStale.
	StaleAnswer StaleAnswer

	// OnlyPassing leaves out instances that warn, too.
	OnlyPassing bool
	// ARecordLimit is the most address records of an answer on any transport;
	// 0 means no limit. It never sets TC.
	ARecordLimit int
	// UDPAnswerLimit is the most records of an answer to a UDP client that
	// takes 512 octets, at most 8 counts; 0 means as many as fit. It never
	// sets TC.
	UDPAnswerLimit int
	// EnableTruncate sets TC when an answer had to be cut to the client's size.
	EnableTruncate bool
	// NoNodeMetaTXT leaves the TXT records of node metadata out of the
	// additional section.
	NoNodeMetaTXT bool
	// SOA holds the fields of the zone's SOA record.
	SOA SOA
}

// StaleAnswer is what becomes of an answer that is staler than it may be.
type StaleAnswer uint8

const (
	// ShortTTL: it is given with a TTL of at most 5 s.
	ShortTTL StaleAnswer = iota
	// ServFail: the answer is SERVFAIL.
	ServFail
)

// SOA holds what can be chosen of the SOA record. Zero fields but MinTTL mean
// the defaults: 3600, 600 and 86400 seconds.
type SOA struct {
	Refresh, Retry, Expire time.Duration
	// MinTTL is the TTL of negative answers and of the record itself
	// (RFC 2308 section 4).
	MinTTL time.Duration
}

// Options are what a zone is made of besides its configuration.
type Options struct {
	Config Config
	// State returns the newest published state of the catalog that this host
	// knows. Two calls that return equal (==) values have seen the same state. It
	// is called on the receive loop: it must not block, lock or allocate. Required.
	State func() State
	// Want subscribes to the named service, whose contents are not here, and
	// returns a channel that is closed once they are or the name is found not
	// to exist. It is cheap, may be called again and again, and in a flight
	// only. Required.
	Want func(name string) <-chan struct{}
	// Chase follows names that services and nodes have for addresses; nil
	// leaves them unfollowed.
	Chase Chaser
	// Neighbour asks other hosts for a service whose contents the servers don't
	// tell and this host never knew, and reports whether State knows more
	// now (VIEWS rule 11). It is called in flights, with a ctx that ends within
	// a second. Nil: nobody is asked.
	Neighbour func(ctx context.Context, service string) bool
	// Moved is called after each SetConfig; it must move the counter that
	// State.Epoch returns. Required.
	Moved func()
	// Now is the clock of the SOA serial; nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

const (
	defaultDomain     = wire.Name("\x06consul\x00")
	defaultDatacenter = "dc1"
	// maxUDPAnswerLimit is Consul's: eight SRV records with their addresses
	// are what 512 octets can hold.
	maxUDPAnswerLimit = 8
	maxTTL            = time.Duration(1<<31-1) * time.Second // RFC 2181 section 8
)

// settings are a Config made ready: immutable, swapped whole.
type settings struct {
	domains []*domain // the longest first
	main    *domain
	dc      string // as configured
	dcLower string

	nodeTTL     uint32
	maxStale    time.Duration
	staleAnswer StaleAnswer
	serviceTTL  map[string]uint32
	ttlPrefixes []ttlPrefix // the longest first

	onlyPassing bool
	aLimit      int
	udpLimit    int
	truncate    bool
	metaTXT     bool

	refresh, retry, expire, minTTL uint32
}

type ttlPrefix struct {
	prefix string
	ttl    uint32
}

// domain is one of the zone's names with what answers below it need.
type domain struct {
	name  wire.Name // configured spelling
	lower wire.Name
	// nodes and addrs are what follows a node's name or an encoded address:
	// ".node.dc1.consul.", ".addr.dc1.consul.", in wire form.
	nodes, addrs, services wire.Name
	mname, rname           wire.Name
}

// Check returns the error of a configuration that New and SetConfig would refuse.
func (c Config) Check() error {
	_, err := compile(c)
	return err
}

func compile(c Config) (*settings, error) {
	s := &settings{
		dc:          c.Datacenter,
		onlyPassing: c.OnlyPassing,
		aLimit:      c.ARecordLimit,
		udpLimit:    min(c.UDPAnswerLimit, maxUDPAnswerLimit),
		truncate:    c.EnableTruncate,
		metaTXT:     !c.NoNodeMetaTXT,
		maxStale:    c.MaxStale,
		staleAnswer: c.StaleAnswer,
		serviceTTL:  make(map[string]uint32),
	}
	if s.dc == "" {
		s.dc = defaultDatacenter
	}
	s.dcLower = strings.ToLower(s.dc)
	if len(s.dc) > 63 || strings.Contains(s.dc, ".") {
		return nil, fmt.Errorf("datacenter %q cannot be one DNS label: use letters, digits and hyphens, at most 63", s.dc)
	}
	if c.ARecordLimit < 0 || c.UDPAnswerLimit < 0 {
		return nil, errors.New("dns_config: a_record_limit and udp_answer_limit must not be negative")
	}
	if c.MaxStale < 0 || c.StaleAnswer > ServFail {
		return nil, fmt.Errorf("view.max_stale is %v: it must not be negative", c.MaxStale)
	}
	if err := s.setDomains(c); err != nil {
		return nil, err
	}
	if err := s.setTTLs(c); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *settings) setDomains(c Config) error {
	if c.Domain == "" {
		c.Domain = defaultDomain
	}
	d, err := s.newDomain(c.Domain)
	if err != nil {
		return fmt.Errorf("domain %s: %w", c.Domain, err)
	}
	s.main, s.domains = d, []*domain{d}
	if c.AltDomain == "" || c.AltDomain.Lower() == d.lower {
		return nil
	}
	first := strings.ToLower(firstLabel(c.AltDomain))
	if isKind(first) || first == s.dcLower {
		return fmt.Errorf("alt_domain %s must not begin with %q, which has a meaning inside the zone", c.AltDomain, first)
	}
	alt, err := s.newDomain(c.AltDomain)
	if err != nil {
		return fmt.Errorf("alt_domain %s: %w", c.AltDomain, err)
	}
	s.domains = append(s.domains, alt)
	slices.SortStableFunc(s.domains, func(a, b *domain) int { return len(b.name) - len(a.name) })
	return nil
}

func (s *settings) newDomain(n wire.Name) (*domain, error) {
	if len(n) < 2 {
		return nil, errors.New("the root cannot be the zone")
	}
	d := &domain{name: n, lower: n.Lower()}
	var err error
	below := func(labels ...string) wire.Name {
		m, e := prepend(n, labels...)
		err = errors.Join(err, e)
		return m
	}
	d.nodes = below("node", s.dc)
	d.addrs = below("addr", s.dc)
	d.services = below("service", s.dc)
	d.mname = below("ns")
	d.rname = below("hostmaster")
	if err == nil {
		_, err = prepend(d.addrs, strings.Repeat("0", 32))
	}
	return d, err
}

func (s *settings) setTTLs(c Config) error {
	var errs []error
	seconds := func(key string, d, byDefault time.Duration) uint32 {
		if d == 0 {
			d = byDefault
		}
		if d < 0 || d > maxTTL {
			errs = append(errs, fmt.Errorf("%s is %v: a TTL is 0 to %v", key, d, maxTTL))
			return 0
		}
		return uint32(d / time.Second)
	}
	s.nodeTTL = seconds("dns_config.node_ttl", c.NodeTTL, 0)
	s.refresh = seconds("dns_config.soa.refresh", c.SOA.Refresh, time.Hour)
	s.retry = seconds("dns_config.soa.retry", c.SOA.Retry, 10*time.Minute)
	s.expire = seconds("dns_config.soa.expire", c.SOA.Expire, 24*time.Hour)
	s.minTTL = seconds("dns_config.soa.min_ttl", c.SOA.MinTTL, 0)
	for key, d := range c.ServiceTTL {
		ttl := seconds("dns_config.service_ttl "+key, d, 0)
		name := strings.ToLower(key)
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			s.ttlPrefixes = append(s.ttlPrefixes, ttlPrefix{prefix, ttl})
		} else {
			s.serviceTTL[name] = ttl
		}
	}
	slices.SortFunc(s.ttlPrefixes, func(a, b ttlPrefix) int {
		if d := len(b.prefix) - len(a.prefix); d != 0 {
			return d
		}
		return strings.Compare(a.prefix, b.prefix)
	})
	return errors.Join(errs...)
}

// ttl returns the TTL of a service, whose name is in lower case.
func (s *settings) ttl(service string) uint32 {
	if ttl, ok := s.serviceTTL[service]; ok {
		return ttl
	}
	for _, p := range s.ttlPrefixes {
		if strings.HasPrefix(service, p.prefix) {
			return p.ttl
		}
	}
	return 0
}

// domainOf returns the domain that a lower-cased name is in, and the labels
// left of it; nil when it is in none.
func (s *settings) domainOf(lower wire.Name) (*domain, wire.Name) {
	for _, d := range s.domains {
		if lower.HasSuffix(d.lower) {
			return d, lower[:len(lower)-len(d.lower)]
		}
	}
	return nil, ""
}

func firstLabel(n wire.Name) string {
	if len(n) == 0 || int(n[0]) >= len(n) {
		return ""
	}
	return string(n[1 : 1+n[0]])
}
