package dnsmasq

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"meibo/resolver/wire"
)

// finish settles what only all lines together say.
func (im *importer) finish() {
	for _, f := range im.later {
		f()
	}
	im.servers = im.others(im.servers)
	for _, r := range im.routes {
		if asked := len(r.servers) > 0; asked {
			r.servers = im.others(r.servers)
			r.local = r.local || len(r.servers) == 0 && len(r.addresses) == 0
		}
	}
	im.defaultServers()
	im.aliasesStandAlone()
	im.onePTR()
	if len(im.listen) == 0 && len(im.interfs) == 0 && im.port != "-1" {
		im.listen = []string{"127.0.0.1", "::1"}
		im.general("dnsmasq listens on every address of the host unless told; meibo on loopback: add addresses to listen if other hosts or containers ask this one")
	}
	last := func(n Note) int { // what no line says comes last
		if n.at == 0 {
			return math.MaxInt
		}
		return n.at
	}
	slices.SortStableFunc(im.notes, func(a, b Note) int { return cmp.Compare(last(a), last(b)) })
}

// others leaves out this daemon itself, as dnsmasq does.
func (im *importer) others(servers []string) []string {
	return slices.DeleteFunc(servers, func(s string) bool {
		if im.isOwn(s) {
			im.note(im.from[s], Changed, "that is this daemon itself, and is left out")
			return true
		}
		return false
	})
}

// isOwn tells what is listened on, or would be if this daemon were told nothing.
func (im *importer) isOwn(server string) bool {
	a, err := netip.ParseAddrPort(server)
	if addr, e := netip.ParseAddr(server); e == nil {
		a, err = netip.AddrPortFrom(addr, 53), nil
	}
	if err != nil || strconv.Itoa(int(a.Port())) != im.port {
		return false
	}
	is := func(listened string) bool {
		l := netip.MustParseAddr(listened).Unmap()
		return l == a.Addr().Unmap() || l.IsUnspecified() && a.Addr().IsLoopback()
	}
	return is("127.0.0.1") || is("::1") || slices.ContainsFunc(im.listen, is)
}

// aliasesStandAlone leaves out other records of names that have a CNAME: dnsmasq
// answers with that.
func (im *importer) aliasesStandAlone() {
	aliases := map[wire.Name]record{}
	for _, r := range im.records {
		if _, has := aliases[r.owner]; r.isAlias && !has {
			aliases[r.owner] = r
		}
	}
	im.records = slices.DeleteFunc(im.records, func(r record) bool {
		alias, has := aliases[r.owner]
		if !has || r.text == alias.text {
			return false
		}
		im.leftOut(r.o, "%s has a CNAME (%s:%d), which stands alone and is what is answered", r.owner, alias.o.file, alias.o.line)
		return true
	})
}

// onePTR leaves an address the PTR of its first host-record, or those that ptr-record=
// gives it.
func (im *importer) onePTR() {
	named := map[wire.Name]bool{}
	for _, r := range im.records {
		named[r.owner] = named[r.owner] || r.isPTR && !r.derived
	}
	im.records = slices.DeleteFunc(im.records, func(r record) bool {
		drop := r.derived && named[r.owner]
		named[r.owner] = named[r.owner] || r.derived
		return drop
	})
}

// defaultServers decides who answers every other name, and makes the "#" of other
// blocks stand for these.
func (im *importer) defaultServers() {
	var root route
	if at := slices.IndexFunc(im.routes, func(r *route) bool { return r.suffix == "." }); at >= 0 {
		root = *im.routes[at]
		im.routes = slices.Delete(im.routes, at, at+1)
	}
	im.servers = unique(append(im.servers, slices.DeleteFunc(root.servers, func(s string) bool { return s == "#" })...))
	all := []string{"#"} // what stands for them in a block: recursors, or resolv.conf's servers
	switch {
	case im.noResolv:
		im.resolv = ""
		if len(im.servers) == 0 {
			all = nil
		}
	default: // recursors would take the place of resolv.conf's
		all = append(im.servers, "#")
		im.servers = nil
	}
	for _, r := range im.routes {
		if at := slices.Index(r.servers, "#"); at >= 0 {
			r.servers = slices.Concat(r.servers[:at], all, r.servers[at+1:])
			r.local = r.local || len(r.servers) == 0
		}
		if len(r.servers) > 0 {
			r.local = false // dnsmasq prefers the server too
		}
	}
	for _, r := range im.routes {
		if len(r.addresses) > 0 && len(r.servers) == 0 && !r.local {
			r.servers = im.withoutAddresses(r, all)
		}
	}
	root.suffix, root.servers, root.local = ".", all, false
	switch plain := im.mode == "" && !im.trustAD && len(root.addresses) == 0; {
	case len(all) == 0 && len(root.addresses) == 0:
		root.local = true
		im.general("nobody is asked about names without a block of their own: they don't exist for meibo, and dnsmasq refuses to say")
		fallthrough
	case !plain, len(all) > 1:
		im.routes = append(im.routes, &root)
	}
}

// withoutAddresses are the servers that are asked for what the addresses of r don't
// answer: those of the next shorter domain that says who is, or all.
func (im *importer) withoutAddresses(r *route, all []string) []string {
	var parent *route
	for _, p := range im.routes {
		if strings.HasSuffix(r.suffix, "."+p.suffix) && (p.local || len(p.servers) > 0) && (parent == nil || len(p.suffix) > len(parent.suffix)) {
			parent = p
		}
	}
	switch {
	case parent == nil:
		return all
	case parent.local:
		im.note(r.from, Changed, "%s has no data of other types; dnsmasq says there that the name doesn't exist, as nobody is asked about %s", r.suffix, parent.suffix)
	}
	return parent.servers
}

// hcl writes the file.
func (im *importer) hcl() string {
	var b strings.Builder
	b.WriteString("# Made from a configuration of dnsmasq. `meibo validate FILE` checks it.\n")
	if len(im.notes) > 0 {
		b.WriteString("#\n# Not taken as it stood there:\n")
		for _, n := range im.notes {
			fmt.Fprintf(&b, "# - %s\n", inComment(n.String()))
		}
	}
	b.WriteByte('\n')
	top := im.top
	top = append(top, im.listening()...)
	if len(im.servers) > 0 {
		top = append(top, setting{"recursors", list(im.servers)})
	}
	if im.resolv != "" {
		top = append(top, setting{"resolv_file", quote(im.resolv)})
	}
	writeSettings(&b, "", top)
	for _, r := range im.routes {
		fmt.Fprintf(&b, "forward %s {\n", quote(r.suffix))
		writeSettings(&b, "  ", im.routeSettings(r))
		b.WriteString("}\n")
	}
	writeBlock(&b, "hosts", im.hostsSettings())
	writeBlock(&b, "filter", im.filterSettings())
	writeBlock(&b, "cache", lastOf(im.cache))
	return b.String()
}

// inComment is a text for a comment: one line, and no brackets that would seem to open
// a block.
func inComment(s string) string {
	open := opensMore(s)
	return strings.Map(func(c rune) rune {
		switch {
		case c < ' ' || c == 0x7f:
			return ' '
		case open && (c == '{' || c == '['):
			return '('
		}
		return c
	}, s)
}

// opensMore tells a text that leaves brackets open, or many: those within strings and
// comments count too where meibo bounds how deep a file is nested.
func opensMore(s string) bool {
	const many = 8
	depth, most := 0, 0
	for _, c := range s {
		switch c {
		case '{', '[':
			depth++
			most = max(most, depth)
		case '}', ']':
			depth = max(0, depth-1)
		}
	}
	return depth > 0 || most > many
}

// listening says where DNS is answered.
func (im *importer) listening() []setting {
	if im.port == "-1" {
		return []setting{{"ports", "{ dns = -1 }"}}
	}
	addrs := withoutCovered(unique(im.listen))
	if len(im.interfs) == 0 {
		for i, a := range addrs {
			if strings.Contains(a, ":") {
				a = "[" + a + "]"
			}
			addrs[i] = a + ":" + im.port
		}
		return []setting{{"listen", list(addrs)}}
	}
	text := addrs
	for _, name := range unique(im.interfs) {
		// The template takes a regular expression: eth0 would be veth01 too.
		text = append(text, fmt.Sprintf(`{{ GetInterfaceIP %q }}`, "^"+regexp.QuoteMeta(name)+"$"))
	}
	return []setting{{"addresses", fmt.Sprintf("{ dns = %s }", quote(strings.Join(text, " ")))}, {"ports", fmt.Sprintf("{ dns = %s }", im.port)}}
}

// withoutCovered leaves out addresses that a wildcard stands for too: [::] for all.
func withoutCovered(addrs []string) []string {
	if slices.Contains(addrs, "::") {
		return []string{"::"}
	}
	if !slices.Contains(addrs, "0.0.0.0") {
		return addrs
	}
	return slices.DeleteFunc(addrs, func(a string) bool { return a != "0.0.0.0" && !strings.Contains(a, ":") })
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (im *importer) routeSettings(r *route) []setting {
	var s []setting
	if len(r.addresses) > 0 {
		s = append(s, setting{"addresses", list(unique(r.addresses))})
	}
	switch {
	case len(r.servers) > 0:
		s = append(s, setting{"servers", list(unique(r.servers))})
	case len(s) > 0:
		return s
	default:
		return []setting{{"local", "true"}}
	}
	if im.mode != "" {
		s = append(s, setting{"mode", quote(im.mode)})
	}
	if im.trustAD {
		s = append(s, setting{"trust_ad", "true"})
	}
	return s
}

func (im *importer) hostsSettings() []setting {
	var s []setting
	files := im.hostFiles
	if !im.noHosts && len(files) > 0 {
		files = append([]string{"/etc/hosts"}, files...)
	}
	if im.noHosts || len(files) > 0 {
		s = append(s, setting{"files", list(unique(files))})
	}
	if len(im.records) > 0 {
		var texts []string
		for _, r := range im.records {
			texts = append(texts, r.text)
		}
		s = append(s, setting{"records", list(unique(texts))})
	}
	if im.expand && im.domain != "" {
		s = append(s, setting{"domain", quote(im.domain)})
	}
	s = append(s, setting{"type_transparent", "true"})
	if im.hostsTTL != "" {
		s = append(s, setting{"ttl", im.hostsTTL})
	}
	return s
}

func (im *importer) filterSettings() []setting {
	priv := "off"
	if im.bogusPriv {
		priv = "reverse"
	}
	s := append(lastOf(im.filter), setting{"bogus_priv", quote(priv)})
	for _, l := range []struct {
		key  string
		list []string
	}{{"types", im.types}, {"bogus_nxdomain", im.bogus}, {"rebind_domain_ok", im.rebindOK}} {
		if len(l.list) > 0 {
			s = append(s, setting{l.key, list(unique(l.list))})
		}
	}
	return s
}

// lastOf leaves the last of each key.
func lastOf(all []setting) []setting {
	var out []setting
	for i, s := range all {
		if !slices.ContainsFunc(all[i+1:], func(o setting) bool { return o.key == s.key }) {
			out = append(out, s)
		}
	}
	return out
}

// quote writes a string; "${" would begin an interpolation.
func quote(s string) string {
	q := strings.ReplaceAll(strconv.Quote(s), "${", `\u0024{`)
	if opensMore(s) {
		q = strings.NewReplacer("{", `\u007b`, "[", `\u005b`).Replace(q)
	}
	return q
}

// list writes a list, a long one with a line for each.
func list(items []string) string {
	const wide = 80
	q := make([]string, len(items))
	n := 0
	for i, s := range items {
		q[i] = quote(s)
		n += len(q[i]) + 2
	}
	if n <= wide {
		return "[" + strings.Join(q, ", ") + "]"
	}
	return "[\n    " + strings.Join(q, ",\n    ") + ",\n  ]"
}

func writeBlock(b *strings.Builder, name string, all []setting) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "%s {\n", name)
	writeSettings(b, "  ", all)
	b.WriteString("}\n")
}

// writeSettings writes keys with their equals signs in a column.
func writeSettings(b *strings.Builder, indent string, all []setting) {
	width := 0
	for _, s := range all {
		if !strings.HasPrefix(s.value, "{") {
			width = max(width, len(s.key))
		}
	}
	for _, s := range all {
		if strings.HasPrefix(s.value, "{") {
			fmt.Fprintf(b, "%s%s %s\n", indent, s.key, s.value)
			continue
		}
		fmt.Fprintf(b, "%s%-*s = %s\n", indent, width, s.key, s.value)
	}
}
