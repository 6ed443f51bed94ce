package dnsmasq

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meibo/resolver/local"
	"meibo/resolver/wire"
)

// takers are the options that meibo has an equal of.
var takers = map[string]func(*importer, *option){
	"server": (*importer).server, "local": (*importer).server, "rev-server": (*importer).revServer, "address": (*importer).address,
	"no-resolv": func(im *importer, _ *option) { im.noResolv = true },
	"resolv-file": func(im *importer, o *option) {
		if im.resolv != "" {
			im.leftOut(o, "one file of upstreams is followed, %s", im.resolv)
			return
		}
		im.resolv = o.plain()
	},
	"strict-order": func(im *importer, _ *option) { im.mode = "strict" },
	"all-servers":  func(im *importer, _ *option) { im.mode = "all" },
	"proxy-dnssec": func(im *importer, _ *option) { im.trustAD = true },

	"listen-address": func(im *importer, o *option) {
		for _, a := range o.fields(",") {
			addr, err := parseAddr(a)
			if err != nil {
				im.leftOut(o, "%q is no address", a)
				continue
			}
			if addr.IsMulticast() || addr == broadcast || addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "" {
				im.leftOut(o, "%s is no address that a host listens on", a)
				continue
			}
			im.listen = append(im.listen, addr.Unmap().String())
		}
	},
	"interface": (*importer).iface,
	"port": func(im *importer, o *option) {
		if n, err := strconv.Atoi(o.value); err != nil || n < 0 || n > 65535 {
			im.leftOut(o, "no port")
			return
		} else if n == 0 {
			im.leftOut(o, "that is a dnsmasq without DNS: nothing of it is meibo's")
			im.port = "-1"
			return
		}
		im.port = o.value
	},

	"servers-file": func(im *importer, o *option) {
		im.note(o, Changed, "its servers are taken as they are now: import again when it changes, or write a file of its own into meibo's configuration")
	},

	"no-hosts":   func(im *importer, _ *option) { im.noHosts = true },
	"addn-hosts": func(im *importer, o *option) { im.hostFiles = append(im.hostFiles, o.plain()) },
	"hostsdir":   func(im *importer, o *option) { im.hostFiles = append(im.hostFiles, o.plain()) },
	"expand-hosts": func(im *importer, o *option) {
		im.expand = true
		im.later = append(im.later, func() {
			if im.domain == "" {
				im.leftOut(o, "no domain= says which domain the names get")
			}
		})
	},
	"domain": func(im *importer, o *option) {
		fields := o.fields(",")
		switch {
		case len(fields) > 1:
			im.leftOut(o, "domains of single networks are for DHCP")
		case fields[0] == "#":
			im.leftOut(o, "name the domain: it is not taken from resolv.conf")
		case im.isDomain(o, strings.Trim(fields[0], ".")):
			im.domain = strings.Trim(fields[0], ".")
		}
	},
	"local-ttl": func(im *importer, o *option) {
		const most = 596523 * 3600 // of hosts.ttl
		if n, ok := seconds(o.value); ok && n > 0 {
			im.hostsTTL = im.atMost(o, n, most)
		} else {
			im.leftOut(o, "the TTL of hosts files is 10 s, and 1 s at least: changes reach cached answers at once")
		}
	},

	"domain-needed": func(im *importer, _ *option) { im.filter = append(im.filter, setting{"domain_needed", "true"}) },
	"bogus-priv":    func(im *importer, _ *option) { im.bogusPriv = true },
	"bogus-nxdomain": func(im *importer, o *option) {
		for _, a := range o.fields(",") {
			if _, err := netip.ParsePrefix(a); err == nil {
				im.bogus = append(im.bogus, a)
			} else if _, err := parseAddr(a); err == nil {
				im.bogus = append(im.bogus, a)
			} else {
				im.leftOut(o, "%q is no address", a)
			}
		}
	},
	"stop-dns-rebind":     func(im *importer, _ *option) { im.filter = append(im.filter, setting{"stop_dns_rebind", "true"}) },
	"rebind-localhost-ok": func(im *importer, _ *option) { im.filter = append(im.filter, setting{"rebind_localhost_ok", "true"}) },
	"rebind-domain-ok": func(im *importer, o *option) {
		for _, d := range o.fields("/") {
			if d = strings.Trim(d, "."); d == "" {
				continue
			} else if !im.isDomain(o, d) {
				continue
			}
			im.rebindOK = append(im.rebindOK, d)
		}
	},
	"filter-AAAA": func(im *importer, _ *option) { im.types = append(im.types, "AAAA") },
	"filter-A":    func(im *importer, _ *option) { im.types = append(im.types, "A") },
	"filter-rr": func(im *importer, o *option) {
		for _, t := range o.fields(",") {
			if _, err := strconv.Atoi(t); err == nil {
				t = "TYPE" + t
			}
			if _, ok := wire.ParseType(strings.ToUpper(t)); !ok {
				im.leftOut(o, "%q is no type of record", t)
				continue
			}
			im.types = append(im.types, strings.ToUpper(t))
		}
	},

	"cache-size": func(im *importer, o *option) {
		const perName, enough = 300, 16 << 20 // octets; the default of cache.max_bytes
		switch n, err := strconv.ParseInt(o.value, 10, 32); {
		case err != nil || n < 0:
			im.leftOut(o, "no number")
		case n == 0:
			im.leftOut(o, "the cache is always on: TTL 0 alone is not kept")
		case n*perName <= enough:
			im.note(o, NotNeeded, "the cache is bounded by memory, and 16 MiB hold more names than that")
		default:
			im.cache = append(im.cache, setting{"max_bytes", fmt.Sprintf("%q", fmt.Sprintf("%dMiB", (n*perName+1<<20-1)>>20))})
		}
	},
	"min-cache-ttl": func(im *importer, o *option) {
		if n, ok := im.seconds(o); ok { // dnsmasq takes no more than an hour either
			im.cache = append(im.cache, setting{"min_ttl", inSeconds(min(n, 3600))})
		}
	},
	"max-cache-ttl": func(im *importer, o *option) {
		const most = 168 * 3600
		switch n, ok := im.seconds(o); {
		case ok && n == 0: // no bound
			im.cache = append(im.cache, setting{"max_ttl", im.atMost(o, 1<<31-1, most)})
		case ok:
			im.cache = append(im.cache, setting{"max_ttl", im.atMost(o, n, most)})
		}
	},
	"max-ttl": ttlOf("max_client_ttl", 168*3600), "neg-ttl": ttlOf("negative_ttl", 3*3600),
	"no-negcache": func(im *importer, _ *option) { im.cache = append(im.cache, setting{"negative_max_ttl", `"0s"`}) },

	"host-record": (*importer).hostRecord, "cname": (*importer).cname, "srv-host": (*importer).srvHost, "txt-record": (*importer).txtRecord,
	"ptr-record": (*importer).ptrRecord, "mx-host": (*importer).mxHost, "mx-target": func(im *importer, o *option) { im.mxTarget = o.plain() },
	"naptr-record": (*importer).naptrRecord, "caa-record": (*importer).caaRecord, "dns-rr": (*importer).dnsRR,

	"pid-file": func(im *importer, o *option) {
		if o.value != "" {
			im.top = append(im.top, setting{"pid_file", quote(o.plain())})
		}
	},
	"log-facility": func(im *importer, o *option) {
		switch v := o.plain(); {
		case v == "-":
			im.note(o, NotNeeded, "the log goes to the standard error output anyway")
		case strings.Contains(v, "/"):
			im.top = append(im.top, setting{"log_file", quote(v)})
		case slices.Contains(facilities, strings.ToLower(v)):
			im.top = append(im.top, setting{"enable_syslog", "true"}, setting{"syslog_facility", quote(strings.ToUpper(v))})
		default:
			im.leftOut(o, "no facility of syslog is called so")
		}
	},
}

// facilities are those of syslog that have a name.
var facilities = strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp local0 local1 local2 local3 local4 local5 local6 local7")

// broadcast is nobody's own address.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// seconds reads a number of them.
func seconds(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// seconds reads an option whose value is a number of them.
func (im *importer) seconds(o *option) (int, bool) {
	n, ok := seconds(o.value)
	if !ok {
		im.leftOut(o, "%q is no number of seconds", o.value)
	}
	return n, ok
}

func inSeconds(n int) string { return fmt.Sprintf("\"%ds\"", n) }

// atMost is a number of seconds as a duration, and notes where most is less.
func (im *importer) atMost(o *option, n, most int) string {
	if n > most {
		im.note(o, Changed, "%d s are the most that there is", most)
	}
	return inSeconds(min(n, most))
}

// ttlOf takes seconds for a key of the block cache.
func ttlOf(key string, most int) func(*importer, *option) {
	return func(im *importer, o *option) {
		if n, ok := im.seconds(o); ok {
			im.cache = append(im.cache, setting{key, im.atMost(o, n, most)})
		}
	}
}

// isDomain notes what is none.
func (im *importer) isDomain(o *option, d string) bool {
	_, err := parseAddr(d)
	if err == nil {
		im.leftOut(o, "%s is an address and no domain: rev-server= is for the names of addresses", d)
		return false
	}
	n, err := wire.ParseName(target(d))
	if err == nil && strings.Contains(d, "*") {
		im.leftOut(o, "%q: there are no patterns, a domain goes with all names below it", d)
		return false
	}
	if err != nil || strings.Contains(d, `\`) || n.Lower().Unasked() != "" {
		im.leftOut(o, "%q is no domain that can be asked for", d)
		return false
	}
	return true
}

// domains takes /DOMAIN/DOMAIN/REST apart; "." stands for all.
func (im *importer) domains(o *option) (domains []string, rest string) {
	parts := o.fields("/")[1:]
	rest = parts[len(parts)-1]
	if len(parts) == 1 {
		im.leftOut(o, "expected /DOMAIN/ and what comes of it")
	}
	for _, d := range parts[:len(parts)-1] {
		switch name, below := strings.CutPrefix(d, "*."); {
		case d == "#":
			domains = append(domains, ".")
		case d == "" && rest == "":
			im.filter = append(im.filter, setting{"domain_needed", "true"})
			im.note(o, Changed, "addresses of names without a dot are asked of nobody; other types are, which dnsmasq denies too")
		case d == "":
			im.later = append(im.later, func() {
				im.leftOut(o, "names without a dot have no block of their own, and go where those with a dot go")
			})
		case below:
			im.note(o, Changed, "%s itself goes with the names below it", name)
			d = name
			fallthrough
		default:
			if im.isDomain(o, strings.Trim(d, ".")) {
				domains = append(domains, strings.Trim(d, "."))
			}
		}
	}
	return domains, rest
}

// consulPort is where a Consul agent answers DNS.
const consulPort = 8600

// upstream reads ADDRESS[#PORT][@INTERFACE or SOURCE]; "" with a note: it is none.
func (im *importer) upstream(o *option, s string) string {
	s, from, hasFrom := strings.Cut(s, "@")
	host, port, hasPort := strings.Cut(s, "#")
	addr, err := parseAddr(host)
	if err != nil {
		im.leftOut(o, "%q is no address: servers are asked by their addresses", host)
		return ""
	}
	if addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast {
		im.leftOut(o, "%s is no server's address", addr)
		return ""
	}
	number := uint64(53)
	if hasPort {
		if number, err = strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			im.leftOut(o, "%q is no port", port)
			return ""
		}
	}
	if addr.IsLoopback() && number == consulPort && !im.keepAgent {
		im.note(o, NotNeeded, "that is a Consul agent, whose names meibo answers itself, reverse ones too (domain, if its names are not below .consul)")
		return ""
	}
	if hasFrom {
		im.note(o, Changed, "questions leave as the routing table says, not from %q", from)
	}
	text := addr.String()
	if number != 53 {
		text = netip.AddrPortFrom(addr, uint16(number)).String()
	}
	if im.from[text] == nil {
		im.from[text] = o
	}
	return text
}

// server takes server= and local= in all their forms.
func (im *importer) server(o *option) {
	switch {
	case o.value == "":
		im.leftOut(o, "no server")
		return
	case !strings.HasPrefix(o.value, "/"):
		if s := im.upstream(o, o.plain()); s != "" {
			im.servers = append(im.servers, s)
		}
		return
	}
	domains, to := im.domains(o)
	if len(domains) == 0 {
		return
	}
	if to != "" && to != "#" {
		if to = im.upstream(o, to); to == "" {
			return
		}
	}
	for _, d := range domains {
		switch r := im.route(d); {
		case to == "":
			r.local = true
		default:
			im.addServer(o, r, to)
		}
	}
}

// addServer adds a server to a block.
func (im *importer) addServer(o *option, r *route, server string) {
	r.servers = append(r.servers, server)
	if r.suffix == "consul" {
		im.note(o, Changed, `these servers answer .consul then, and meibo itself does not: take the block forward "consul" out when this host is part of the cluster`)
	}
}

// revServer takes rev-server=ADDRESS[/LENGTH],SERVER.
func (im *importer) revServer(o *option) {
	fields := o.fields(",")
	if len(fields) != 2 {
		im.leftOut(o, "expected a network and a server")
		return
	}
	network, err := netip.ParsePrefix(fields[0])
	if addr, e := parseAddr(fields[0]); e == nil {
		network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		im.leftOut(o, "%q is no network", fields[0])
		return
	}
	server := ""
	if fields[1] != "" {
		if server = im.upstream(o, fields[1]); server == "" {
			return
		}
	}
	if r := im.route(network.Masked().String()); server == "" {
		r.local = true
	} else {
		im.addServer(o, r, server)
	}
}

// address takes address=/DOMAIN/…/[ADDRESS].
func (im *importer) address(o *option) {
	if !strings.HasPrefix(o.value, "/") {
		im.leftOut(o, "expected /DOMAIN/ADDRESS")
		return
	}
	domains, to := im.domains(o)
	var addresses []string
	switch addr, err := parseAddr(to); {
	case to == "":
	case to == "#":
		addresses = []string{"0.0.0.0", "::"}
	case err != nil:
		im.leftOut(o, "%q is no address", to)
		return
	default:
		addresses = []string{addr.String()}
	}
	for _, d := range domains {
		r := im.route(d)
		r.addresses = append(r.addresses, addresses...)
		if r.from == nil {
			r.from = o
		}
		r.local = r.local || to == ""
	}
}

// isInterface tells what may be the name of an interface.
func isInterface(name string) bool {
	const most = 15 // IFNAMSIZ
	return name != "" && len(name) <= most && !strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`*/,"\{}`, c) })
}

// parseAddr reads an address, whose zone is an interface.
func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err == nil && addr.Zone() != "" && !isInterface(addr.Zone()) {
		err = fmt.Errorf("%q is no interface", addr.Zone())
	}
	return addr, err
}

func (im *importer) iface(o *option) {
	for _, name := range o.fields(",") {
		switch {
		case strings.HasSuffix(name, "*"):
			im.leftOut(o, "name each interface: there are no patterns")
		case !isInterface(name):
			im.leftOut(o, "%q is no interface's name", name)
		case name != "lo":
			im.interfs = append(im.interfs, name)
			im.note(o, Changed, "its IPv4 address is listened on; add others to addresses.dns")
		}
	}
	im.listen = append(im.listen, "127.0.0.1", "::1") // as dnsmasq does
}

// record adds a static record, unless it is none that could be answered.
func (im *importer) record(o *option, name, ttl, format string, args ...any) {
	if ttl != "" {
		ttl += " "
	}
	r := record{text: target(name) + " " + ttl + fmt.Sprintf(format, args...), isAlias: strings.HasPrefix(format, "CNAME"), isPTR: strings.HasPrefix(format, "PTR"), o: o}
	r.derived = r.isPTR && o.name == "host-record"
	if _, err := local.NewHosts(local.HostsConfig{Files: []string{}, Records: []string{r.text}}); err != nil {
		im.leftOut(o, "%v", err)
		return
	}
	owner, err := wire.ParseName(target(name))
	if err != nil {
		im.leftOut(o, "%q is no name", name)
		return
	}
	r.owner = owner.Lower()
	im.records = append(im.records, r)
}

// withTTL takes a number at the end of a list for a TTL.
func withTTL(fields []string) (rest []string, ttl string) {
	last := len(fields) - 1
	if _, err := strconv.ParseUint(fields[last], 10, 31); err == nil && last > 0 {
		return fields[:last], fields[last]
	}
	return fields, ""
}

// hostRecord takes host-record=NAME[,NAME…],[ADDRESS],[ADDRESS][,TTL].
func (im *importer) hostRecord(o *option) {
	fields, ttl := withTTL(o.fields(","))
	var names []string
	found := false
	for _, f := range fields {
		addr, err := parseAddr(f)
		switch {
		case f == "":
		case err != nil:
			names = append(names, f)
		case len(names) > 0:
			found = true
			for _, n := range names {
				im.record(o, n, ttl, "%s %s", wire.TypeString(wire.AddrType(addr.Unmap())), addr.Unmap())
			}
			im.record(o, strings.TrimSuffix(wire.ReverseName(addr).String(), "."), ttl, "PTR %s.", target(names[0]))
		}
	}
	if !found {
		im.leftOut(o, "no name has an address")
	}
}

// cname takes cname=ALIAS[,ALIAS…],TARGET[,TTL].
func (im *importer) cname(o *option) {
	fields, ttl := withTTL(o.fields(","))
	if len(fields) < 2 {
		im.leftOut(o, "expected an alias and a target")
		return
	}
	to := fields[len(fields)-1]
	for _, alias := range fields[:len(fields)-1] {
		if strings.Contains(alias, "*") {
			im.leftOut(o, "there are no wildcards: name each alias")
			continue
		}
		im.record(o, alias, ttl, "CNAME %s.", target(to))
	}
}

// srvHost takes srv-host=_SERVICE._PROTOCOL[.DOMAIN][,TARGET[,PORT[,PRIORITY[,WEIGHT]]]].
func (im *importer) srvHost(o *option) {
	f := append(o.fields(","), "", "", "", "")
	name := f[0]
	im.later = append(im.later, func() {
		if strings.Count(name, ".") == 1 && im.domain != "" {
			name += "." + im.domain
		}
		im.record(o, name, "", "SRV %s %s %s %s.", or(f[3], "0"), or(f[4], "0"), or(f[2], "1"), target(f[1]))
	})
}

// or is s, or what stands for it where it is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (im *importer) txtRecord(o *option) {
	fields := o.fields(",")
	text := fields[1:]
	if len(text) == 0 {
		text = []string{""}
	}
	for i, t := range text {
		text[i] = quoted(t)
	}
	im.record(o, fields[0], "", "TXT %s", strings.Join(text, " "))
}

// target is a name in the presentation form of RFC 1035 section 5.1, which may hold
// blanks: those of DNS-SD do. Its last dot is the caller's.
func target(name string) string {
	var b strings.Builder
	for _, c := range []byte(strings.Trim(name, ".")) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"();@$\\`, c) >= 0 {
			fmt.Fprintf(&b, "\\%03d", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// quoted is a string in the presentation form of RFC 1035 section 5.1.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, "\\%03d", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (im *importer) ptrRecord(o *option) {
	fields := o.fields(",")
	if len(fields) != 2 {
		im.leftOut(o, "expected a name and a target")
		return
	}
	im.record(o, fields[0], "", "PTR %s.", target(fields[1]))
}

// mxHost takes mx-host=NAME[,TARGET][,PREFERENCE].
func (im *importer) mxHost(o *option) {
	f := append(o.fields(","), "", "")
	to, preference := f[1], f[2]
	if _, err := strconv.Atoi(to); err == nil {
		to, preference = "", to
	}
	im.later = append(im.later, func() {
		if to = or(to, im.mxTarget); to == "" {
			im.leftOut(o, "no target: dnsmasq takes this host's name, which it is better to write")
			return
		}
		im.record(o, f[0], "", "MX %s %s.", or(preference, "1"), target(to))
	})
}

// naptrRecord takes naptr-record=NAME,ORDER,PREFERENCE,FLAGS,SERVICE,REGEXP[,REPLACEMENT].
func (im *importer) naptrRecord(o *option) {
	f := o.fields(",")
	if len(f) < 6 {
		im.leftOut(o, "expected a name, order, preference, flags, service and regular expression")
		return
	}
	f = append(f, "")
	im.record(o, f[0], "", "NAPTR %s %s %s %s %s %s.", f[1], f[2], quoted(f[3]), quoted(f[4]), quoted(f[5]), target(f[6]))
}

func (im *importer) caaRecord(o *option) {
	f := o.fields(",")
	if len(f) != 4 {
		im.leftOut(o, "expected a name, flags, tag and value")
		return
	}
	im.record(o, f[0], "", "CAA %s %s %s", f[1], f[2], quoted(f[3]))
}

// dnsRR takes dns-rr=NAME,NUMBER[,HEX] (RFC 3597 section 5).
func (im *importer) dnsRR(o *option) {
	f := append(o.fields(","), "", "")
	data := strings.NewReplacer(":", "", " ", "").Replace(f[2])
	if _, err := strconv.ParseUint(f[1], 10, 16); err != nil || len(data)%2 != 0 {
		im.leftOut(o, "expected a name, the number of a type, and data in hexadecimal")
		return
	}
	im.record(o, f[0], "", `TYPE%s \# %d %s`, f[1], len(data)/2, data)
}
