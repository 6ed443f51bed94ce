package resolvconf

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxServers bounds the servers of one file. The C library takes three; more
// are useful to a resolver that chooses among them, hundreds are not.
const maxServers = 16

// File is what a resolv.conf says (resolv.conf(5)).
type File struct {
	// Servers in the file's order, each once; IPv6 ones may have a zone.
	Servers []netip.Addr
	// Search is the list of the last "search" or "domain" line.
	Search []string
	// Options are the words of all "options" lines,
	// kept for who writes the file anew.
	Options []string
	// Faults say which lines make no sense, with their numbers.
	Faults []string
}

// Parse reads the text of a resolv.conf. Lines that make no sense are left
// out, as the C library does, and named in Faults.
func Parse(text string) File {
	var f File
	for n := 1; text != ""; n++ {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		if fault := f.parseLine(line); fault != "" && len(f.Faults) < maxServers {
			f.Faults = append(f.Faults, fmt.Sprintf("line %d: %s", n, fault))
		}
	}
	return f
}

func (f *File) parseLine(line string) (fault string) {
	if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
		return ""
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return ""
	}
	// A comment may follow, though resolv.conf(5) doesn't say so.
	for i, w := range words {
		if i > 0 && (w[0] == '#' || w[0] == ';') {
			words = words[:i]
			break
		}
	}
	switch key, values := words[0], words[1:]; key {
	case "nameserver":
		return f.addServer(values)
	case "search":
		f.Search = values
	case "domain":
		f.Search = values[:min(1, len(values))]
	case "options":
		f.Options = append(f.Options, values...)
	case "sortlist", "lookup", "family", "trust-anchor":
		// Means nothing to a resolver.
	default:
		return fmt.Sprintf("unknown keyword %.40q", key)
	}
	return ""
}

func (f *File) addServer(values []string) (fault string) {
	if len(values) == 0 {
		return "nameserver without an address"
	}
	addr, err := netip.ParseAddr(values[0])
	if err != nil {
		return fmt.Sprintf("%.60q is no IP address", values[0])
	}
	addr = addr.Unmap()
	for _, s := range f.Servers {
		if s == addr {
			return ""
		}
	}
	if len(f.Servers) == maxServers {
		return fmt.Sprintf("more than %d nameservers", maxServers)
	}
	f.Servers = append(f.Servers, addr)
	return ""
}
