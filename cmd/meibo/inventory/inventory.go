// Package inventory reads lists of hosts that others keep (CSV, JSON, Ansible's
// inventories in INI and YAML, hosts files) and compares them with the nodes of the
// catalog by name and address.
//
// It reads what a file says and nothing that the file names: no variables' files, no
// scripts, no templates.
package inventory

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
)

const (
	// maxFile bounds the memory that an inventory takes: a list of a million hosts is smaller.
	maxFile = 64 << 20
	// maxHosts bounds what a few characters can stand for, such as h[0:99999999].
	maxHosts = 1 << 20
	// maxFaults are told of one file: more are mostly one fault in many lines.
	maxFaults = 10
)

// Format is how an inventory is written.
type Format string

// The formats there are.
const (
	Guess Format = ""      // by the file's name, or what it begins with
	CSV   Format = "csv"   // a header, or name and address in this order
	JSON  Format = "json"  // a list or an object of hosts, or what ansible-inventory --list prints
	INI   Format = "ini"   // Ansible's
	YAML  Format = "yaml"  // Ansible's, or as JSON
	Hosts Format = "hosts" // hosts(5)
)

// Formats are those that can be asked for.
var Formats = []Format{CSV, JSON, INI, YAML, Hosts}

// Host is one host of an inventory.
type Host struct {
	Name      string
	Aliases   []string     // other names of it, which count as well
	Addresses []netip.Addr // none: the inventory doesn't say
	Line      int          // where it is first named
}

// Fault is what is wrong with an inventory.
type Fault struct {
	File string
	Line int // 0: the file as a whole
	Text string
}

// Error implements error.
func (f *Fault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// Read reads an inventory; file is its name, for errors and to guess the format by. The
// hosts are in the order of the inventory, each once. An error is one *Fault or several,
// joined.
func Read(file string, r io.Reader, format Format) ([]Host, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > maxFile {
		return nil, &Fault{File: file, Text: fmt.Sprintf("larger than %d MB, and no inventory", maxFile>>20)}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // spreadsheets begin UTF-8 so
	l := &list{file: file, at: map[string]int{}}
	if at := bytes.IndexByte(data, 0); at >= 0 {
		l.fault(1+bytes.Count(data[:at], []byte("\n")), "a byte 0: this is no text")
		return nil, l.err()
	}
	switch cmp.Or(format, guess(file, data)) {
	case CSV:
		l.readCSV(data)
	case JSON:
		l.readJSON(data)
	case INI:
		l.readINI(data)
	case YAML:
		l.readYAML(data)
	case Hosts:
		l.readHosts(data)
	default:
		return nil, fmt.Errorf("format %q: expected one of csv, json, ini, yaml, hosts", format)
	}
	if len(l.hosts) == 0 {
		l.fault(0, "no host in it")
	}
	return l.hosts, l.err()
}

// guess tells the format by the file's name, or else by its first line that says something.
func guess(file string, data []byte) Format {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".csv", ".tsv":
		return CSV
	case ".json":
		return JSON
	case ".yml", ".yaml":
		return YAML
	case ".ini", ".cfg":
		return INI
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		fields := strings.Fields(line)
		_, err := netip.ParseAddr(fields[0])
		switch {
		case line[0] == '{', line == "[", strings.HasPrefix(line, "[{"), strings.HasPrefix(line, "[ "), line == "[]", strings.HasPrefix(line, `["`):
			return JSON
		case line[0] == '[':
			return INI
		case line == "---", strings.HasPrefix(line, "- "), strings.HasSuffix(fields[0], ":") && err != nil:
			return YAML
		case err == nil && len(fields) > 1 && !strings.Contains(fields[1], "=") && !strings.Contains(line, ","):
			return Hosts
		case strings.ContainsAny(fields[0], ",\t") || separator(line) != 0 && !strings.Contains(line, "="):
			return CSV
		}
		return INI // a host of no group
	}
	return INI
}

// list gathers the hosts of one file.
type list struct {
	file   string
	hosts  []Host
	at     map[string]int // where in hosts, by folded name
	faults []error
	more   int // faults that are not told
}

func (l *list) fault(line int, format string, args ...any) {
	if len(l.faults) == maxFaults {
		l.more++
		return
	}
	l.faults = append(l.faults, &Fault{l.file, line, fmt.Sprintf(format, args...)})
}

func (l *list) err() error {
	if l.more > 0 {
		return errors.Join(append(l.faults, &Fault{File: l.file, Text: fmt.Sprintf("and %d faults more", l.more)})...)
	}
	return errors.Join(l.faults...)
}

// host returns the host of this name, a new one if need be; nil where the name is none, or there are too many.
func (l *list) host(line int, name string) *Host {
	if !isName(name) {
		l.fault(line, "%q is no name of a host: expected letters, digits, dots, dashes and underscores, or an IP address", name)
		return nil
	}
	at, known := l.at[fold(name)]
	if !known {
		if at = len(l.hosts); at == maxHosts {
			l.fault(line, "more than %d hosts", maxHosts)
			return nil
		}
		l.at[fold(name)] = at
		l.hosts = append(l.hosts, Host{Name: name, Line: line})
		if addr, err := netip.ParseAddr(name); err == nil {
			l.hosts[at].add(addr)
		}
	}
	return &l.hosts[at]
}

// address gives a host what an inventory says of its address. Where it may be a name (a
// target of Ansible's), that is one more name of the host.
func (l *list) address(line int, h *Host, text string, mayBeName bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		h.add(addr)
		return
	}
	if prefix, err := netip.ParsePrefix(text); err == nil { // as address managers write the addresses of hosts
		h.add(prefix.Addr())
		return
	}
	switch {
	case mayBeName && strings.Contains(text, "{{"): // a template, of which only Ansible knows the result
	case mayBeName && isName(text) && strings.Trim(text, "0123456789.") != "":
		h.alias(text)
	default:
		l.fault(line, "%q of %s: expected an IP address", text, h.Name)
	}
}

func (h *Host) add(addr netip.Addr) {
	addr = addr.Unmap().WithZone("")
	for _, a := range h.Addresses {
		if a == addr {
			return
		}
	}
	h.Addresses = append(h.Addresses, addr)
}

func (h *Host) alias(name string) {
	for _, n := range append(h.Aliases, h.Name) {
		if fold(n) == fold(name) {
			return
		}
	}
	h.Aliases = append(h.Aliases, name)
}

// isName tells what can be the name of a host, of the inventory alone too.
func isName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c == 0x7f || strings.ContainsRune(`,;:=/\"'{}[]()<>|`, c)
	})
}

// fold is a name as names are compared.
func fold(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
