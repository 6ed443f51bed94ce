package dnsmasq

import (
	"fmt"
	"strings"

	"meibo/resolver/wire"
)

// Kind says what became of a line that isn't taken as it is.
type Kind string

const (
	// LeftOut: it does something that meibo does not.
	LeftOut Kind = "left out"
	// Changed: what was made of it is not quite the same.
	Changed Kind = "changed"
	// NotNeeded: meibo does it anyway, or has no need of it.
	NotNeeded Kind = "not needed"
)

// Note is about one line, or about something that no line says (Line is 0 then).
type Note struct {
	Kind Kind
	File string
	Line int
	Text string // the line
	Why  string
	at   int // the place of the line among all; 0: of no line
}

// String is the note for people.
func (n Note) String() string {
	if n.Line == 0 {
		return fmt.Sprintf("%s: %s", n.Kind, n.Why)
	}
	return fmt.Sprintf("%s:%d: %s: %s: %s", n.File, n.Line, n.Kind, n.Text, n.Why)
}

// Result is what Import made.
type Result struct {
	HCL   string // a configuration file of meibo
	Notes []Note // in the order of the lines
}

// Import reads files of dnsmasq's, and those that they name, and returns what meibo
// makes of them. An error is about a file that can't be read.
func Import(files ...string) (Result, error) {
	var r reader
	for _, f := range files {
		if err := r.file(f); err != nil {
			return Result{}, err
		}
	}
	return r.result(false), nil
}

func (r *reader) result(keepAgent bool) Result {
	im := newImporter()
	im.keepAgent = keepAgent
	for i := range r.options {
		im.apply(&r.options[i])
	}
	im.finish()
	return Result{HCL: im.hcl(), Notes: im.notes}
}

// importer gathers what the lines say.
type importer struct {
	notes     []Note
	keepAgent bool // a Consul agent is a server like others

	servers   []string // of every name
	routes    []*route
	noResolv  bool
	resolv    string
	mode      string
	trustAD   bool
	listen    []string // addresses
	interfs   []string
	port      string
	hostFiles []string
	noHosts   bool
	expand    bool
	domain    string
	mxTarget  string
	records   []record
	filter    []setting
	cache     []setting
	hostsTTL  string
	top       []setting
	types     []string
	bogus     []string
	rebindOK  []string
	bogusPriv bool
	later     []func()           // what needs to know all lines
	from      map[string]*option // the line that first names a server
}

// record is a static record and the line that it comes from.
type record struct {
	text    string
	owner   wire.Name // lower case
	isAlias bool
	isPTR   bool
	derived bool // the PTR of a host-record
	o       *option
}

// setting is one key of a block, its value as it is written.
type setting struct{ key, value string }

// route is a forward block.
type route struct {
	suffix    string
	servers   []string
	addresses []string
	local     bool
	from      *option // the first line that gives it an address
}

func newImporter() *importer { return &importer{port: "53", from: map[string]*option{}} }

func (im *importer) note(o *option, k Kind, format string, args ...any) {
	im.notes = append(im.notes, Note{Kind: k, File: o.file, Line: o.line, Text: o.text(), Why: fmt.Sprintf(format, args...), at: o.at})
}

func (im *importer) leftOut(o *option, format string, args ...any) {
	im.note(o, LeftOut, format, args...)
}

// general notes what no line says.
func (im *importer) general(format string, args ...any) {
	im.notes = append(im.notes, Note{Kind: Changed, Why: fmt.Sprintf(format, args...)})
}

// route returns the block of a suffix.
func (im *importer) route(suffix string) *route {
	suffix = strings.ToLower(strings.TrimSuffix(suffix, "."))
	if suffix == "" || suffix == "#" {
		suffix = "."
	}
	for _, r := range im.routes {
		if r.suffix == suffix {
			return r
		}
	}
	r := &route{suffix: suffix}
	im.routes = append(im.routes, r)
	return r
}

// apply does what one line says.
func (im *importer) apply(o *option) {
	if o.again != "" {
		im.note(o, NotNeeded, "%s has been read already", o.again)
		return
	}
	if f := takers[o.name]; f != nil {
		f(im, o)
		return
	}
	if why := notNeeded[o.name]; why != "" {
		im.note(o, NotNeeded, "%s", why)
		return
	}
	for _, g := range absent {
		for _, p := range g.names {
			if o.name == p || strings.HasSuffix(p, "-") && strings.HasPrefix(o.name, p) {
				im.leftOut(o, "%s", g.why)
				return
			}
		}
	}
	im.leftOut(o, "not an option of dnsmasq that is known here")
}

// notNeeded are options that ask for what meibo does anyway.
var notNeeded = map[string]string{
	"test":                "`meibo validate` checks files",
	"no-poll":             "files are watched through the kernel, nothing is polled",
	"bind-interfaces":     "meibo listens on the addresses it is told and no others",
	"bind-dynamic":        "meibo listens on the addresses it is told and no others",
	"local-service":       "questions of networks that this host is not attached to are refused (allow_recursion)",
	"dns-forward-max":     "4,096 questions may be under way",
	"keep-in-foreground":  "the daemon always stays in the foreground",
	"no-daemon":           "the daemon always stays in the foreground",
	"log-async":           "logging never holds up an answer",
	"fast-dns-retry":      "a late server's question goes to the next one after 30 to 400 ms",
	"use-stale-cache":     "expired answers stand in while upstreams fail (cache.stale), never before they were asked",
	"edns-packet-max":     "1,232 octets, as RFC 9715 advises",
	"dns-loop-detect":     "loops are always looked for",
	"clear-on-reload":     "a reload keeps cached answers; those of changed names and routes go",
	"cache-rr":            "answers of every type are cached",
	"min-port":            "ports are of the kernel's random choice (net.ipv4.ip_local_port_range)",
	"max-port":            "ports are of the kernel's random choice (net.ipv4.ip_local_port_range)",
	"query-port":          "one port for all questions would help forgers: they leave from 256 random ones",
	"port-limit":          "questions leave from 256 sockets on random ports",
	"no-0x20-encode":      "letters keep their case",
	"max-tcp-connections": "connections of clients are bounded",
	"conf-script":         "nothing is run: give what the script prints as a file",
}

// absent are options of what meibo does not do, a prefix where they end with "-".
var absent = []struct {
	why   string
	names []string
}{
	{"DHCP, TFTP and router advertisements are not meibo's: let dnsmasq go on with them, with port=0", []string{
		"dhcp-", "tftp-", "pxe-", "enable-tftp", "enable-ra", "ra-param", "read-ethers", "tag-if", "no-ping", "bootp-dynamic", "log-dhcp", "quiet-", "shared-network",
		"bridge-interface", "leasefile-ro", "script-", "no-dhcp-interface", "no-dhcpv4-interface", "no-dhcpv6-interface", "dhcpv4-", "dhcpv6-", "do-ns-", "force-fast-ra"}},
	{"answers are not validated here: ask servers that do, over a way that can be trusted, and set trust_ad in their forward block", []string{"dnssec", "dnssec-", "trust-anchor"}},
	{"there is no log of questions: `meibo lookup NAME` explains an answer, and metrics count", []string{"log-queries", "log-malloc", "log-debug", "dumpfile", "dumpmask"}},
	{"the unit decides who the daemon runs as (User=, Group=)", []string{"user", "group"}},
	{"names are not made out of addresses: name each in hosts.records", []string{"synth-domain", "dynamic-host"}},
	{"meibo is no authoritative server for others", []string{"auth-", "host-record-auth"}},
	{"firewall sets and marks are not filled", []string{"ipset", "nftset", "conntrack", "connmark-"}},
	{"nothing of the client is told to upstreams", []string{"add-mac", "add-subnet", "add-cpe-id", "strip-mac", "strip-subnet", "umbrella"}},
	{"an answer is the same for every client, its records rotated: programs sort addresses (RFC 6724)", []string{"localise-queries", "no-round-robin"}},
	{"addresses in answers are not rewritten", []string{"alias"}},
	{"version.bind names meibo", []string{"no-ident"}},
	{"name MX records in hosts.records", []string{"selfmx", "localmx"}},
	{"there is no such interface: `meibo` commands and the HTTP API tell and change", []string{"enable-dbus", "enable-ubus", "leasequery"}},
	{"addresses of interfaces have no names of their own: name them in hosts.records", []string{"interface-name"}},
	{"an answer that should not count can be denied (filter.bogus_nxdomain), not waited past", []string{"ignore-address"}},
	{"questions are not left out by what they are for", []string{"filterwin2k"}},
	{"meibo listens on the addresses it is told and no others: leave those of this interface out", []string{"except-interface"}},
}
