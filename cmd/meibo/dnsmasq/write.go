package dnsmasq

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"meibo/resolver/local"
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
	for _, r := range im.routes {
		switch {
		case len(r.addresses) > 0 && len(r.servers) > 0:
			im.general("forward %q: its names have addresses of their own; dnsmasq asks %s for other types, meibo says there are none", r.suffix, strings.Join(r.servers, ", "))
			r.servers = nil
		case len(r.servers) > 0:
			r.local = false // dnsmasq prefers the server too
		}
	}
	im.records = unique(im.records)
	if _, err := local.NewHosts(local.HostsConfig{Files: []string{}, Records: im.records}); err != nil {
		im.general("mend by hand: %v", err)
	}
	im.fallbackServers()
	if len(im.listen) == 0 && len(im.interfs) == 0 && im.port != "-1" {
		im.listen = []string{"127.0.0.1", "::1"}
		im.general("dnsmasq listens on every address of the host unless told; meibo on loopback: add addresses to listen if other hosts or containers ask this one")
	}
	slices.SortStableFunc(im.notes, func(a, b Note) int {
		if a.Line == 0 || b.Line == 0 {
			return cmp.Compare(min(b.Line, 1), min(a.Line, 1)) // what no line says comes last
		}
		return 0
	})
}

// others leaves out this daemon itself, as dnsmasq does.
func (im *importer) others(servers []string) []string {
	return slices.DeleteFunc(servers, func(s string) bool {
		own := s == "127.0.0.1" && im.port == "53" || s == "::1" && im.port == "53" || s == "127.0.0.1:"+im.port || s == "[::1]:"+im.port
		if own {
			im.general("the server %s is this daemon itself, and is left out", s)
		}
		return own
	})
}

// fallbackServers decides who answers every other name.
func (im *importer) fallbackServers() {
	all := slices.IndexFunc(im.routes, func(r *route) bool { return r.suffix == "." })
	if all >= 0 && (im.routes[all].local || len(im.routes[all].addresses) > 0) {
		if len(im.servers) > 0 {
			im.general("%s are asked nothing: every name without a block of its own is fixed", strings.Join(im.servers, ", "))
		}
		im.servers, im.resolv = nil, ""
		return
	}
	servers := im.servers
	if all >= 0 {
		servers = append(servers, im.routes[all].servers...)
		im.routes = slices.Delete(im.routes, all, all+1)
	}
	if im.noResolv && len(servers) == 0 {
		im.route(".").local = true // nobody is asked
		return
	}
	if im.noResolv && im.resolv != "" {
		im.resolv = ""
	}
	if im.noResolv && im.mode == "" && !im.trustAD {
		im.servers = servers
		return
	}
	im.servers = nil
	if len(servers) == 0 && im.mode == "" && !im.trustAD {
		return // resolv.conf's, as without a word
	}
	if !im.noResolv {
		servers = append(servers, "#") // resolv.conf's too
	}
	im.route(".").servers = servers
}

// hcl writes the file.
func (im *importer) hcl() string {
	var b strings.Builder
	b.WriteString("# Made from a configuration of dnsmasq. `meibo validate FILE` checks it.\n")
	if len(im.notes) > 0 {
		b.WriteString("#\n# Not taken as it stood there:\n")
		for _, n := range im.notes {
			fmt.Fprintf(&b, "# - %s\n", strings.Map(printable, n.String()))
		}
	}
	b.WriteByte('\n')
	top := im.top
	top = append(top, im.listening()...)
	if len(im.servers) > 0 {
		top = append(top, setting{"recursors", list(im.servers)})
	}
	if im.resolv != "" {
		top = append(top, setting{"resolv_file", strconv.Quote(im.resolv)})
	}
	writeSettings(&b, "", top)
	for _, r := range im.routes {
		fmt.Fprintf(&b, "forward %q {\n", r.suffix)
		writeSettings(&b, "  ", im.routeSettings(r))
		b.WriteString("}\n")
	}
	writeBlock(&b, "hosts", im.hostsSettings())
	writeBlock(&b, "filter", im.filterSettings())
	writeBlock(&b, "cache", lastOf(im.cache))
	return b.String()
}

func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return ' '
	}
	return c
}

// listening says where DNS is answered.
func (im *importer) listening() []setting {
	if im.port == "-1" {
		return []setting{{"ports", "{ dns = -1 }"}}
	}
	addrs := slices.Compact(im.listen)
	if len(im.interfs) == 0 {
		for i, a := range addrs {
			if strings.Contains(a, ":") {
				a = "[" + a + "]"
			}
			addrs[i] = a + ":" + im.port
		}
		return []setting{{"listen", list(unique(addrs))}}
	}
	text := unique(addrs)
	for _, name := range unique(im.interfs) {
		text = append(text, fmt.Sprintf(`{{ GetInterfaceIP %q }}`, name))
	}
	return []setting{{"addresses", fmt.Sprintf("{ dns = %s }", strconv.Quote(strings.Join(text, " ")))}, {"ports", fmt.Sprintf("{ dns = %s }", im.port)}}
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
	switch {
	case len(r.addresses) > 0:
		return []setting{{"addresses", list(unique(r.addresses))}}
	case r.local || len(r.servers) == 0:
		return []setting{{"local", "true"}}
	}
	s := []setting{{"servers", list(unique(r.servers))}}
	if im.mode != "" {
		s = append(s, setting{"mode", strconv.Quote(im.mode)})
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
		s = append(s, setting{"records", list(im.records)})
	}
	if im.expand && im.domain != "" {
		s = append(s, setting{"domain", strconv.Quote(im.domain)})
	}
	if im.hostsTTL != "" {
		s = append(s, setting{"ttl", im.hostsTTL})
	}
	return s
}

func (im *importer) filterSettings() []setting {
	s := lastOf(im.filter)
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

// list writes a list, a long one with a line for each.
func list(items []string) string {
	const wide = 80
	q := make([]string, len(items))
	n := 0
	for i, s := range items {
		q[i] = strconv.Quote(s)
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
